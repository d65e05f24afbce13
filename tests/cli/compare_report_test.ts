/** Reports of `mor bench compare` from given times. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { compareJson, type CompareReport, compareText, verdictText } from "../../cli/compare_report.ts";
import { summarizeRatios } from "../../model/paired_ratios.ts";

Deno.test("verdictText says by how much, with the interval, and no more than was shown", () => {
  const summary = (geometricMean: number, ...interval: [number, number]) => ({
    median: 1,
    range: [1, 1] as const,
    geometricMean,
    interval,
  });
  const cases = [
    [summary(1.12, 1.07, 1.17), "faster by 12 % (7 to 17 %)"],
    [summary(2.5, 2, 3), "faster by 150 % (100 to 200 %)"],
    [summary(1.12, 1.004, 1.25), "faster by 12.0 % (0.4 to 25.0 %)"],
    [summary(1.001, 1.0005, 1.0015), "faster by 0.10 % (0.05 to 0.15 %)"],
    [summary(0.9, 0.85, 0.95), "slower by 10 % (5 to 15 %)"],
    [summary(1.12, 0.99, 1.25), "no difference shown"],
    [summary(1.12, 1, 1.25), "no difference shown"],
    [{ ...summary(1.12, 1, 1), interval: null }, "no difference shown"],
  ] as const;
  for (const [ratios, expected] of cases) assertEquals(verdictText(ratios), expected);
});

/** Pairs of 8 and 4 ms, and 16 and 8 ms, for four tokens. */
const times = [[8, 4], [16, 8]] as const;
const pairs = times.map(([base, change], i) => ({
  first: i === 0 ? "base" as const : "change" as const,
  base: { milliseconds: base, tokens: 4 },
  change: { milliseconds: change, tokens: 4 },
  ratio: base / change,
}));
const settings = {
  promptTokens: 4,
  steps: 2,
  shape: { batchSize: 3, sequenceLength: 5, gradientAccumulation: 1 },
  recompute: false,
  activationDtype: "f32",
  seed: 9,
} as const;
const side = { text: "", revision: null, commit: null, dtype: null, settings };
const commit = "0123456789abcdef0123456789abcdef01234567";
const report: CompareReport = {
  adapter: { description: "an adapter", isSoftware: false },
  model: "a-model",
  hasRandomWeights: false,
  pairs: 2,
  byProcess: true,
  sides: { base: { ...side, text: "--revision v1", revision: "v1", commit }, change: side },
  works: [{ work: "prefill", pairs, ratios: summarizeRatios([2, 2]) }],
};

Deno.test("compareText shows both sides, their times and what the pairs say", () => {
  const text = compareText(report);
  assertEquals(
    text.slice(0, text.indexOf("\n\n")),
    `adapter   an adapter
model     a-model
base      --revision v1, commit 0123456789ab
change    no flags of its own
work      a prompt of 4 tokens, 2 decoding steps after it, training steps of 3 x 5 tokens; seed 9
pairs     2, each measurement a process of its own; median (range); a ratio above 1: the change takes less time for a token`,
  );
  const lines = text.split("\n").map((line) => line.replaceAll(/ +/g, " "));
  assertEquals(lines.filter((line) => line.startsWith("prefill")), [
    "prefill 12.000 (8.000 to 16.000) 333 6.000 (4.000 to 8.000) 667",
    "prefill 2.000 (2.000 to 2.000) 2.000 (2.000 to 2.000) faster by 100 % (100 to 100 %)",
  ]);
});

Deno.test("compareText says that one pair has no spread", () => {
  const works = [{ work: "prefill" as const, pairs: pairs.slice(0, 1), ratios: summarizeRatios([2]) }];
  assertStringIncludes(compareText({ ...report, pairs: 1, works }), "2.000 (one pair has no spread)");
});

Deno.test("compareJson holds the sides and every pair", () => {
  const json = compareJson(report) as Record<string, Record<string, unknown>>;
  assertEquals(json.base, {
    flags: "--revision v1",
    revision: "v1",
    commit,
    dtype: null,
    seed: 9,
    prompt_tokens: 4,
    steps: 2,
    batch_size: 3,
    sequence_length: 5,
    recompute: false,
    activations: "f32",
  });
  assertEquals(json.by_process as unknown, true);
  assertEquals(json.prefill!.change, {
    tokens: 4,
    median_milliseconds: 6,
    range_milliseconds: [4, 8],
    tokens_per_second: 4 / 0.006,
  });
  assertEquals(json.prefill!.pairs, [
    { first: "base", base_milliseconds: 8, change_milliseconds: 4, ratio: 2 },
    { first: "change", base_milliseconds: 16, change_milliseconds: 8, ratio: 2 },
  ]);
  assertEquals(json.prefill!.verdict, "faster");
});
