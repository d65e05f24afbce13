import { assertAlmostEquals, assertEquals } from "@std/assert";
import { type RatioSummary, summarizeRatios, verdictOf } from "../../model/paired_ratios.ts";

function assertInterval({ interval }: RatioSummary, expected: readonly [number, number]): void {
  assertAlmostEquals(interval![0], expected[0], expected[0] * 1e-4);
  assertAlmostEquals(interval![1], expected[1], expected[1] * 1e-4);
}

Deno.test("summarizeRatios of two: the error of the mean is half the distance of the logarithms", () => {
  // Logarithms to base 2 are 0 and 2: mean 1, error 1, and t = 12.7062 for one degree of freedom.
  const summary = summarizeRatios([4, 1]);
  assertEquals([summary.median, summary.range], [2.5, [1, 4]]);
  assertAlmostEquals(summary.geometricMean, 2, 1e-12);
  assertInterval(summary, [2 ** -11.7062, 2 ** 13.7062]);
  assertEquals(verdictOf(summary), "no difference shown");
});

Deno.test("summarizeRatios of three", () => {
  // Logarithms to base 2 are 0, 1 and 2: deviation 1, error 1 / sqrt(3), and t = 4.30265 for two degrees of freedom.
  const summary = summarizeRatios([2, 4, 1]);
  assertEquals([summary.median, summary.range], [2, [1, 4]]);
  assertAlmostEquals(summary.geometricMean, 2, 1e-12);
  assertInterval(summary, [2 ** (1 - 2.48414), 2 ** (1 + 2.48414)]);
});

Deno.test("summarizeRatios of inverses is the inverse", () => {
  const ratios = [1.1, 1.2, 1.15, 1.3];
  const summary = summarizeRatios(ratios);
  const inverse = summarizeRatios(ratios.map((ratio) => 1 / ratio));
  assertAlmostEquals(inverse.geometricMean, 1 / summary.geometricMean, 1e-12);
  assertInterval(inverse, [1 / summary.interval![1], 1 / summary.interval![0]]);
  assertEquals([verdictOf(summary), verdictOf(inverse)], ["faster", "slower"]);
});

Deno.test("a single ratio has no interval, and equal ones are certain", () => {
  const one = summarizeRatios([3]);
  assertEquals([one.median, one.range, one.interval], [3, [3, 3], null]);
  assertEquals(verdictOf(one), "no difference shown");
  const equal = summarizeRatios([2, 2, 2]);
  assertInterval(equal, [2, 2]);
  assertEquals(verdictOf(equal), "faster");
  assertEquals(verdictOf(summarizeRatios([1, 1, 1])), "no difference shown");
});
