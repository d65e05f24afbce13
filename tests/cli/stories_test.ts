/**
 * What users do in a shell, on the binary and on `deno task mor`: each file of stories/ is a script, which fails at
 * the first thing that is not as it should be.
 */
import { assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { compileBinary } from "../support/binary.ts";
import { corpus, morDone, run } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

const root = fromFileUrl(new URL("../..", import.meta.url));
const stories = fromFileUrl(new URL("stories/", import.meta.url));
const names = Array.from(Deno.readDirSync(stories), ({ name }) => name.replace(".sh", ""))
  .filter((name) => name !== "story").sort();

const folder = await Deno.makeTempDir();
const model = join(folder, "model");

/** Where a `mor` lies that a shell finds. */
const programs = { binary: join(folder, "binary"), task: join(folder, "task") } as const;

Deno.test.beforeAll(async () => {
  await morDone(smallRun(model, "--steps", "2", "--eval-every", "0"));
  for (const path of Object.values(programs)) await Deno.mkdir(path);
  const checkout = join(folder, "checkout");
  await Deno.mkdir(checkout);
  const binary = await compileBinary(checkout);
  await Deno.rename(binary, join(programs.binary, "mor"));
  const task = `unset INIT_CWD\nexec '${Deno.execPath()}' task -q --config '${join(root, "deno.json")}' mor "$@"\n`;
  await Deno.writeTextFile(join(programs.task, "mor"), `#!/bin/sh\n${task}`, { mode: 0o755 });
});

Deno.test.afterAll(() => Deno.remove(folder, { recursive: true }));

for (const way of ["binary", "task"] as const) {
  for (const name of names) {
    Deno.test({
      name: `${name}, ${way}`,
      ignore: Deno.build.os === "windows",
      fn: async () => {
        const cwd = await Deno.makeTempDir({ dir: folder });
        const info = JSON.parse((await run([Deno.execPath(), "info", "--json"])).stdout);
        const env = {
          PATH: `${programs[way]}:${Deno.env.get("PATH")}`,
          // Deno's packages and compiled kernels stay where they are, whatever a story does to HOME.
          ...{ DENO_DIR: info.denoDir, MESA_SHADER_CACHE_DIR: join(info.denoDir, "..") },
          ...{ XDG_CACHE_HOME: join(folder, "cache"), MODEL: model, CORPUS: corpus, WAY: way, TERM: "xterm" },
        };
        const { code, stdout, stderr } = await run(["bash", join(stories, `${name}.sh`)], { cwd, env });
        assertEquals(code, 0, `${stdout}${stderr}`);
        // Parts that cannot run here say so.
        if (stdout.includes("not run:")) Deno.stderr.writeSync(new TextEncoder().encode(stdout));
      },
    });
  }
}
