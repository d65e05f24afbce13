/** dist/mor, the file that runs without Deno: made by the task in a copy of the checkout, run from another folder. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { selfExtractingHeader } from "../../tools/self_extracting.ts";
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

  const nowhere = await run([Deno.execPath(), "task", "compile", "--target", "amiga"], { cwd: checkout! });
  assertEquals([nowhere.code, nowhere.stdout], [2, ""]);
  assertMatch(nowhere.stderr, /^compile: --target is "amiga", wanted one of x86_64-unknown-linux-gnu, /m);

  await checkPermissions({ home: home!, folder: elsewhere!, mor });
});

Deno.test({
  name: "without a home the program unpacks into a folder of the user's own, or not at all",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const script = join(folder, "mor.sh");
    // Behind the script comes an archive of a program that says where it lies.
    await Deno.mkdir(join(folder, "parts", "program"), { recursive: true });
    await Deno.writeTextFile(join(folder, "parts", "program", "entry.js"), "");
    await Deno.writeTextFile(join(folder, "parts", "deno"), '#!/bin/sh\necho "$0"\n', { mode: 0o755 });
    await Deno.writeTextFile(script, selfExtractingHeader({ hash: "hash", os: "linux" }));
    const packed = await run([
      "sh",
      "-c",
      'tar -czf - -C "$1/parts" deno program >> "$1/mor.sh"',
      "sh",
      folder,
    ]);
    assertEquals(packed.code, 0, packed.stderr);
    const start = (TMPDIR: string, more: Readonly<Record<string, string>> = {}): Promise<Outcome> => {
      const env = { PATH: Deno.env.get("PATH") ?? "", TMPDIR, ...more };
      return run(["sh", script], { env, clearEnv: true });
    };
    const user = (await run(["sh", "-c", "id -u"])).stdout.trim();
    const own = join(folder, "own");
    await Deno.mkdir(own);
    const unpacked = join(own, `mor-${user}`, "hash", "deno");
    for (const time of ["first", "second"]) {
      assertEquals(await start(own), { code: 0, stdout: `${unpacked}\n`, stderr: "" }, time);
    }
    assertEquals((await Deno.stat(join(own, `mor-${user}`))).mode! & 0o777, 0o700);
    assertEquals((await start(own, { HOME: script })).stdout, `${unpacked}\n`);

    // What a cleaner of temporary files has left is made whole again.
    for (const part of ["deno", "program/entry.js"]) {
      await Deno.remove(join(own, `mor-${user}`, "hash", part));
      assertEquals((await start(own)).stdout, `${unpacked}\n`, `without ${part}`);
    }
    assertEquals(Array.from(Deno.readDirSync(join(own, `mor-${user}`)), ({ name }) => name), ["hash"]);

    // An archive that cannot be unpacked leaves nothing behind, and the program that is there alone.
    const full = join(folder, "full");
    await Deno.mkdir(full);
    await Deno.writeTextFile(join(full, "tar"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
    const failing = { PATH: `${full}:${Deno.env.get("PATH")}` };
    assertEquals((await start(own, failing)).stdout, `${unpacked}\n`);
    const empty = join(folder, "empty");
    await Deno.mkdir(empty);
    const unable = await start(empty, failing);
    assertEquals([unable.code, unable.stdout], [1, ""]);
    assertMatch(unable.stderr, /mor: Cannot unpack the program: no folder can take it; .*\n$/);
    assertEquals([...Deno.readDirSync(join(empty, `mor-${user}`))], []);

    // Somebody else's: a link, which might lead anywhere, or nowhere yet.
    const [shared, trap] = [join(folder, "shared"), join(folder, "trap")];
    for (const made of [shared, trap]) await Deno.mkdir(made);
    await Deno.symlink(trap, join(shared, `mor-${user}`));
    const distrusted = await start(shared);
    assertEquals([distrusted.code, distrusted.stdout], [1, ""]);
    assertMatch(distrusted.stderr, /^mor: Cannot trust .*: it is not a folder of yours; set XDG_CACHE_HOME/);
    assertEquals([...Deno.readDirSync(trap)], []);
    await Deno.remove(trap);
    assertMatch((await start(shared)).stderr, /^mor: Cannot trust /);
    const lost = await start(script);
    assertEquals([lost.code, lost.stdout], [1, ""]);
    assertMatch(lost.stderr, /^mor: Cannot unpack the program: no folder can take it; .*\n$/);
    await Deno.remove(folder, { recursive: true });
  },
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
