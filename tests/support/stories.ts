/**
 * What users do in a shell: each file of tests/cli/stories is a script, which fails at the first thing that is not as
 * it should be.
 */
import { assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { compileBinary } from "./binary.ts";
import { corpus, morDone, run } from "./program.ts";
import { smallRun } from "./small_run.ts";

const root = fromFileUrl(new URL("../..", import.meta.url));
const stories = fromFileUrl(new URL("../cli/stories/", import.meta.url));
const names = Array.from(Deno.readDirSync(stories), ({ name }) => name.replace(".sh", ""))
  .filter((name) => name !== "story").sort();

/** How a user comes by the program. */
export type Way = "binary" | "task";

/** Puts a `mor` into a folder for a shell to find. */
async function install(folder: string, way: Way): Promise<void> {
  const path = join(folder, "mor");
  if (way === "binary") {
    const checkout = join(folder, "..", "checkout");
    await Deno.mkdir(checkout);
    await Deno.rename(await compileBinary(checkout), path);
    return;
  }
  const task = `exec '${Deno.execPath()}' task -q --config '${join(root, "deno.json")}' mor "$@"`;
  // The task takes it for the user's folder, and these tests run in a task of their own.
  await Deno.writeTextFile(path, `#!/bin/sh\nunset INIT_CWD\n${task}\n`, { mode: 0o755 });
}

/** Registers a test for each story. */
export async function tellStories(way: Way): Promise<void> {
  const folder = await Deno.makeTempDir();
  const [bin, model, cache] = ["bin", "model", "cache"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const info = JSON.parse((await run([Deno.execPath(), "info", "--json"])).stdout);
  const env = {
    PATH: `${bin}:${Deno.env.get("PATH")}`,
    // Deno's packages and compiled kernels stay where they are, whatever a story does to HOME.
    ...{ DENO_DIR: info.denoDir, MESA_SHADER_CACHE_DIR: join(info.denoDir, "..") },
    ...{ XDG_CACHE_HOME: cache, MODEL: model, CORPUS: corpus, TERM: "xterm" },
  };

  Deno.test.beforeAll(async () => {
    await morDone(smallRun(model, "--steps", "2", "--eval-every", "0"));
    await Deno.mkdir(bin);
    await install(bin, way);
  });
  Deno.test.afterAll(() => Deno.remove(folder, { recursive: true }));
  for (const name of names) {
    Deno.test({
      name: `${name}: what users do with the ${way}`,
      ignore: Deno.build.os === "windows",
      fn: async () => {
        const cwd = await Deno.makeTempDir({ dir: folder });
        const { code, stdout, stderr } = await run(["bash", join(stories, `${name}.sh`)], { cwd, env });
        assertEquals(code, 0, `${stdout}${stderr}`);
        // Parts that cannot run here say so.
        if (stdout.includes("not run:")) Deno.stderr.writeSync(new TextEncoder().encode(stdout));
      },
    });
  }
}
