/** The demo as a user sees it, cut down to a few steps; the real one takes two minutes. */
import { assert, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { assertFails, corpus, folderTest, morDone } from "../support/program.ts";

folderTest("demo trains, measures, writes, and leaves a checkpoint that goes on", async (folder) => {
  const out = join(folder, "demo");
  const { stdout, stderr } = await morDone(["demo", "--data", corpus, "--out", out, "--steps", "6"]);
  assertMatch(stdout, /parameters +972,000; unrolled as a vanilla model of 5 layers 1,591,680/);
  assertMatch(stdout, /Loss in bits per byte over 6 steps\n +\d+\.\d\d/);
  assertMatch(stdout, /held-out text +\d\.\d+ bits per byte; byte frequencies alone \d\.\d+/);
  const depths = [...stdout.matchAll(/\b[123]: (\d+) %/g)].map(([, percent]) => Number(percent));
  const sum = depths.reduce((total, percent) => total + percent, 0);
  assert(depths.length === 3 && Math.abs(sum - 100) <= 2, `depths ${depths}`);
  for (const prompt of ["Call me ", "The whale ", "It was "]) assertStringIncludes(stdout, `\n${prompt}`);
  assert(!stdout.includes("\x1b"), "colours without a terminal");
  assertStringIncludes(stderr, "adapter: ");

  await morDone(["generate", out, "-p", "Call", "-n", "2", "--seed", "1"]);
  await assertFails(["demo", "--data", corpus, "--out", join(folder, "other"), "--steps", "0"], {
    code: 2,
    parts: ["--steps is 0"],
  });
  const again = ["demo", "--data", corpus, "--out", out, "--steps", "6"];
  await assertFails(again, { code: 1, parts: ["holds a checkpoint", "--out"] });
});
