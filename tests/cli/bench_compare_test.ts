/** `mor bench compare` in one process; tests/cli/bench_compare_revisions_test.ts has the rest. */
import { assert, assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { assertFails, folderTest, morDone } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

const SMALL = ["--pairs", "2", "-p", "4", "-n", "2"];
const SMALL_STEP = ["--train", "--batch-size", "2", "--sequence-length", "8"];

/** What `--json` says of a kind of work. */
interface WorkJson {
  readonly base: { tokens: number; median_milliseconds: number; tokens_per_second: number };
  readonly change: WorkJson["base"];
  readonly pairs: readonly {
    first: string;
    base_milliseconds: number;
    change_milliseconds: number;
    ratio: number;
  }[];
  readonly ratio: { median: number; range: number[]; geometric_mean: number; interval: number[] };
  readonly verdict: string;
}

/** Works the figures of two pairs out again from their times. */
function assertWork({ base, change, pairs, ratio, verdict }: WorkJson, tokens: number): void {
  assertEquals([base.tokens, change.tokens], [tokens, tokens]);
  assertEquals(pairs.map(({ first }) => first), ["base", "change"]);
  const [one, two] = pairs.map((pair) => pair.base_milliseconds / pair.change_milliseconds);
  assertAlmostEquals(pairs[0]!.ratio, one!, 1e-9);
  assertAlmostEquals(pairs[1]!.ratio, two!, 1e-9);
  assertAlmostEquals(ratio.median, (one! + two!) / 2, 1e-9);
  assertAlmostEquals(ratio.geometric_mean, Math.sqrt(one! * two!), 1e-9);
  assertEquals(ratio.range, [pairs[0]!.ratio, pairs[1]!.ratio].toSorted((a, b) => a - b));
  const [low, high] = ratio.interval as [number, number];
  assertAlmostEquals(Math.sqrt(low * high), ratio.geometric_mean, 1e-6 * ratio.geometric_mean);
  assertEquals(verdict, low > 1 ? "faster" : high < 1 ? "slower" : "no difference shown");
  const middle = (pairs[0]!.base_milliseconds + pairs[1]!.base_milliseconds) / 2;
  assertAlmostEquals(base.median_milliseconds, middle, 1e-9);
  assertAlmostEquals(base.tokens_per_second, 1000 * tokens / middle, 1e-6);
}

Deno.test("bench compare of a preset with itself gives all pairs as JSON", async () => {
  const sides = ["--base", "--dtype f32", "--change", "--dtype f32"];
  const { stdout, stderr } = await morDone(["bench", "compare", "tiny-mor3", ...sides, ...SMALL, "--json"]);
  for (const part of ["adapter: ", "seed: 1\n", "6/6 base of pair 2"]) assertStringIncludes(stderr, part);
  const { adapter, is_software: _, prefill, decode, ...rest } = JSON.parse(stdout);
  assert(adapter.length > 0);
  const side = { flags: "--dtype f32", revision: null, commit: null, dtype: "f32", seed: 1 };
  assertEquals(rest, {
    model: "tiny-mor3",
    random_weights: true,
    pairs: 2,
    by_process: false,
    base: { ...side, prompt_tokens: 4, steps: 2 },
    change: { ...side, prompt_tokens: 4, steps: 2 },
  });
  assertWork(prefill, 4);
  assertWork(decode, 1);
});

folderTest("bench compare of a checkpoint's formats prints a row for each work", async (folder) => {
  const model = join(folder, "model");
  await morDone(smallRun(model, "--steps", "1", "--eval-every", "0"));
  const formats = ["--base", "--dtype f32", "--change", " --dtype   q8_0 -p 3 "];
  const { stdout, stderr } = await morDone(["bench", "compare", model, ...formats, ...SMALL]);
  for (const part of ["base: weights: ", "change: weights: ", " as q8_0"]) assertStringIncludes(stderr, part);
  const parts = [
    `model     ${model}\n`,
    "base      --dtype f32\n",
    "change    --dtype   q8_0 -p 3\n",
    "work      base: a prompt of 4 tokens, 2 decoding steps after it; seed 1\n",
    "          change: a prompt of 3 tokens, 2 decoding steps after it; seed 1\n",
  ];
  for (const part of parts) assertStringIncludes(stdout, part);
  const times = String.raw`[\d.]+ \([\d.]+ to [\d.]+\) +[\d.]+`;
  const ratios = String.raw`[\d.]+ \([\d.]+ to [\d.]+\)`;
  const verdict = String.raw`(no difference shown|(faster|slower) by [\d.]+ % \([\d.]+ to [\d.]+ %\))`;
  for (const work of ["prefill", "decode"]) {
    assertMatch(stdout, new RegExp(`^${work} +${times} +${times}$`, "m"));
    assertMatch(stdout, new RegExp(`^${work} +${ratios} +${ratios} +${verdict}$`, "m"));
  }
  assertEquals(/^train/m.test(stdout), false, stdout);
});

Deno.test("bench compare times training steps, of two sizes too", async () => {
  const args = ["bench", "compare", "tiny", ...SMALL, ...SMALL_STEP, "-q", "--json"];
  const { stdout, stderr } = await morDone(args);
  assertEquals(stderr, "");
  const { train } = JSON.parse(stdout);
  assertWork(train, 16);
  const sides = ["--base", "--train --batch-size 1", "--change", "--train --batch-size 3 --seed 2"];
  const more = [...sides, "--sequence-length", "4", "--pairs", "1", "-p", "4", "-n", "2"];
  // A length alone is no mistake: both sides train.
  const outcome = await morDone(["bench", "compare", "tiny", ...more, "--json"]);
  assertStringIncludes(outcome.stderr, "seed: 1 for the base, 2 for the change\n");
  const { base, change, train: steps } = JSON.parse(outcome.stdout);
  assertEquals([base.batch_size, base.sequence_length, base.seed], [1, 4, 1]);
  assertEquals([change.batch_size, change.sequence_length, change.seed], [3, 4, 2]);
  assertEquals([steps.base.tokens, steps.change.tokens], [4, 12]);
  const [{ base_milliseconds, change_milliseconds, ratio }] = steps.pairs;
  assertAlmostEquals(ratio, (base_milliseconds / 4) / (change_milliseconds / 12), 1e-9);
  assertEquals([steps.ratio.interval, steps.verdict], [null, "no difference shown"]);
});

Deno.test("bench compare times training steps with activations in f32 and f16", async () => {
  const sides = ["--base", "--recompute", "--change", "--activations f16"];
  const args = ["bench", "compare", "tiny", ...SMALL, ...SMALL_STEP, ...sides, "-q"];
  const { stdout } = await morDone(args);
  const step = "4 tokens, 2 decoding steps after it, training steps of 2 x 8 tokens";
  for (
    const part of [
      `work      base: a prompt of ${step} whose layers run again for their gradients; seed 1\n`,
      `          change: a prompt of ${step} with activations stored as f16; seed 1\n`,
    ]
  ) {
    assertStringIncludes(stdout, part);
  }
});

Deno.test("bench compare names the side whose flags are wrong", async () => {
  const cases: readonly (readonly [readonly string[], readonly string[]])[] = [
    [["--base", "--dtpe f32"], ["--base", '"--dtpe"']],
    [["--change", "--json"], ["--change", '"--json"']],
    [["--change", "-p 3 --help"], ["--change", '"--help"']],
    [["--change", "-p"], ["--change", '"--prompt-tokens"']],
    [["--change", "-p 0"], ["--change", "-p is 0", "1 or more"]],
    [["--change", "-n 2.5"], ["--change", '"2.5"']],
    [["--change", "f32"], ["--change"]],
    [["--base", "--dtype q9"], ["--base", '"q9"', "q8_0"]],
    [["--base", "--dtype q8_0"], ["--base", '"q8_0"', "wanted f32", "random weights"]],
    [["--base", "--batch-size 2"], ["--base", "--batch-size needs --train"]],
    [["--change", "--train"], ["--train", "--change", "alone"]],
  ];
  for (const [flags, parts] of cases) {
    await assertFails(["bench", "compare", "tiny", ...flags], { code: 2, parts });
  }
});

Deno.test("bench compare refuses wrong common flags without blaming a side, and unknown models", async () => {
  const cases: readonly (readonly [readonly string[], number, string])[] = [
    [["tiny", "--pairs", "0"], 2, "--pairs is 0"],
    [["tiny", "-p", "0", "--base", "-p 3"], 2, "-p is 0"],
    [["tiny", "--dtype", "q9"], 2, "q9"],
    [["tiny", "--sequence-length", "8"], 2, "--sequence-length needs --train"],
    [["tiny", "-p", "2000"], 1, "lower -p or -n"],
    [["tinny"], 1, '"tinny"'],
    [[], 2, "model"],
  ];
  for (const [args, code, part] of cases) {
    const line = await assertFails(["bench", "compare", ...args], { code, parts: [part] });
    assertEquals(line.includes("With --"), false, line);
  }
});
