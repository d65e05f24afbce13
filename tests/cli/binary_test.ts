/** dist/mor, the file that runs without Deno: made by the task in a copy of the checkout, run from another folder. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { compileBinary } from "../support/binary.ts";
import {
  assertLeastPermissions,
  permissionProbe,
  preparePermissionProbe,
  PROBED_ARGS,
} from "../support/permission_probe.ts";
import { corpus, folderTest, type Outcome, run } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

folderTest("dist/mor runs from another folder with next to no environment", async (folder) => {
  const [checkout, home, elsewhere] = ["checkout", "home", "else where"].map((name) => join(folder, name));
  for (const made of [checkout, home, elsewhere]) await Deno.mkdir(made!);
  const binary = await compileBinary(checkout!);
  const env = { PATH: Deno.env.get("PATH") ?? "", HOME: home! };
  const mor = (...args: readonly string[]): Promise<Outcome> =>
    // The tests may start shells, not files that they have just made.
    run(["sh", "-c", 'exec "$@"', "sh", binary, ...args], { cwd: elsewhere!, env, clearEnv: true });

  const help = await mor("--help");
  assertEquals([help.code, help.stderr], [0, ""]);
  for (const command of ["train", "generate", "doctor"]) assertStringIncludes(help.stdout, command);
  const doctor = await mor("doctor");
  assertEquals(doctor.code, 0, doctor.stderr);
  assert(/^adapter +\S/m.test(doctor.stdout), doctor.stdout);

  const trained = await mor(...smallRun("my model", "--data", corpus, "--steps", "2", "--eval-every", "0"));
  assertEquals([trained.code, trained.stdout], [0, ""], trained.stderr);
  const prompt = "two  words 'and' \"quotes\" $HOME *";
  const generated = await mor("generate", "my model", "-p", prompt, "-n", "3", "--quiet");
  assertEquals([generated.code, generated.stderr], [0, ""]);
  assert(generated.stdout.startsWith(prompt), generated.stdout);

  const wrong = await mor("train", "--stepz", "3");
  assertEquals([wrong.code, wrong.stdout], [2, ""]);
  assertStringIncludes(wrong.stderr, '"--stepz"');
  assertEquals((await mor("generate", "nothing here", "-p", "x")).code, 1);
  const revisions = await mor("bench", "compare", "tiny", "--base", "--revision HEAD");
  assertEquals([revisions.code, revisions.stdout], [2, ""]);
  assert(/^mor: Cannot compare revisions: .*checkout.*\n$/.test(revisions.stderr), revisions.stderr);
  assertEquals(Array.from(Deno.readDirSync(elsewhere!), ({ name }) => name), ["my model"]);

  const version = await mor("--version", "--verbose");
  assertEquals([version.code, version.stderr], [0, ""]);
  assert(/^mor +\d+\.\d+\.\d+\ncommit +(unknown|[0-9a-f]{40}.*)\n/.test(version.stdout), version.stdout);
  assert(/^zod +\d+\.\d+\.\d+$/m.test(version.stdout), version.stdout);
  const [checksum] = (await Deno.readTextFile(`${binary}.sha256`)).split(" ");
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await Deno.readFile(binary)));
  assertEquals(checksum, digest.toHex());

  await checkPermissions({ home: home!, folder: elsewhere!, mor });
});

/** Puts the probe where the binary has unpacked its program, and starts the binary as for `generate`. */
async function checkPermissions(
  { home, folder, mor }: {
    home: string;
    folder: string;
    mor: (...args: readonly string[]) => Promise<Outcome>;
  },
): Promise<void> {
  const unpacked = join(home, ".cache", "mor", "bin");
  const [{ name }] = Array.from(Deno.readDirSync(unpacked)) as [Deno.DirEntry];
  await Deno.copyFile(permissionProbe, join(unpacked, name, "program", "entry.js"));
  await Deno.remove(join(folder, "my model"), { recursive: true });
  await preparePermissionProbe(folder);
  const probed = await mor(...PROBED_ARGS);
  assertEquals([probed.code, probed.stderr], [0, ""]);
  assertLeastPermissions(probed.stdout, folder);
}
