import { assertAlmostEquals, assertEquals } from "@std/assert";
import { compareRows, crossEntropy, summarize } from "./llama_cpp_distance.ts";

function row(...logits: number[]): Float32Array {
  return Float32Array.from(logits);
}

Deno.test("compareRows finds nothing between equal rows, however large", () => {
  for (const logits of [row(1, 2, 3), row(30000, -30000, 0), row(5)]) {
    assertEquals(compareRows(logits, logits), { agrees: true, divergence: 0, difference: 0 });
  }
});

Deno.test("compareRows overlooks a shift of the whole row", () => {
  const { agrees, divergence, difference } = compareRows(row(1, 2, 4), row(11, 12, 14));
  assertEquals([agrees, difference], [true, 0]);
  assertAlmostEquals(divergence, 0, 1e-12);
});

Deno.test("compareRows gives the divergence from the first row to the second", () => {
  const { agrees, divergence, difference } = compareRows(row(0, Math.log(3)), row(0, 0));
  assertEquals(agrees, false);
  assertAlmostEquals(divergence, 0.25 * Math.log(0.5) + 0.75 * Math.log(1.5), 1e-7);
  assertAlmostEquals(difference, Math.log(3) / 2, 1e-7);
});

Deno.test("compareRows takes the lowest of equally likely tokens", () => {
  assertEquals(compareRows(row(2, 2, 1), row(2, 1, 2)).agrees, true);
  assertEquals(compareRows(row(2, 2, 1), row(1, 2, 2)).agrees, false);
});

Deno.test("compareRows and summarize let damaged logits show", () => {
  for (const damaged of [row(NaN, 1), row(Infinity, 1)]) {
    const distance = compareRows(damaged, damaged);
    assertEquals(distance, { agrees: false, divergence: NaN, difference: NaN });
    assertEquals(summarize([distance]).meanDivergence, NaN);
  }
});

Deno.test("crossEntropy is the negative logarithm of a token's probability", () => {
  assertAlmostEquals(crossEntropy(row(0, Math.log(3)), 1), -Math.log(0.75), 1e-7);
  assertAlmostEquals(crossEntropy(row(-1e30, 0), 0), 1e30, 1e24);
});

Deno.test("summarize takes means, medians of odd and even counts, and the worst", () => {
  const rows = [3, 1, 2, 10].map((divergence) => ({
    agrees: divergence > 1,
    divergence,
    difference: divergence / 2,
  }));
  assertEquals(summarize(rows), {
    positions: 4,
    topAgreement: 0.75,
    meanDivergence: 4,
    medianDivergence: 2.5,
    maxDivergence: 10,
    maxDifference: 5,
  });
  assertEquals(summarize(rows.slice(0, 3)).medianDivergence, 2);
  assertEquals(summarize(rows.slice(0, 1)).medianDivergence, 3);
});
