/** A clock that is set back, or files from what is the future to it: nothing waits, and nothing is counted by it. */
import { assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { isRecentTry } from "../../tools/packages.ts";
import { folderTest, morDone } from "../support/program.ts";
import { readMetrics, savedStep, SMALL_RUN_STEPS, smallRun } from "../support/small_run.ts";

const root = fromFileUrl(new URL("../..", import.meta.url));
const HOUR_MS = 3_600_000;

async function sources(folder: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if (isDirectory) found.push(...await sources(path));
    else if (name.endsWith(".ts")) found.push(path);
  }
  return found;
}

Deno.test("the program measures no time with a clock that can be set", async () => {
  const files = (await Promise.all(["cli", "model", "gpu"].map((name) => sources(join(root, name))))).flat();
  const wrong: string[] = [];
  for (const file of files) {
    if (/\bDate\.now\(|\bmtime\b/.test(await Deno.readTextFile(file))) wrong.push(file);
  }
  assertEquals(wrong, []);
});

Deno.test("a try of the registry in the future, as it looks, is not taken for a recent one", () => {
  const ages = [0, HOUR_MS - 1, HOUR_MS, -1, -1000 * HOUR_MS, Infinity];
  assertEquals(ages.map(isRecentTry), [true, true, false, false, false, false]);
});

folderTest("a run whose files are from the future goes on", async (folder) => {
  const run = join(folder, "run");
  await morDone(smallRun(run, "--stop-after", "4"));
  const future = new Date("2100-01-01T00:00:00Z");
  for (
    const name of [
      "config.json",
      "metrics.jsonl",
      "model.safetensors",
      "training",
      "training/step-4.safetensors",
    ]
  ) {
    await Deno.utime(join(run, name), future, future);
  }
  await Deno.utime(run, future, future);
  await morDone(["train", "--out", run, "--resume"]);
  assertEquals(await savedStep(run), SMALL_RUN_STEPS);
  assertEquals((await readMetrics(run)).map(({ step }) => step), [1, 2, 3, 4, 5, 6]);
  await morDone(["generate", run, "-p", "x", "-n", "1"]);
});
