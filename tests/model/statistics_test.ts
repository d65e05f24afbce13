import { assertAlmostEquals, assertEquals } from "@std/assert";
import { mean, median, standardDeviation } from "../../model/statistics.ts";

Deno.test("median is the middle of an odd number of values, and half way between two of an even one", () => {
  assertEquals(median([9, 1, 4]), 4);
  assertEquals(median([9, 1, 4, 5]), 4.5);
  assertEquals(median([3]), 3);
});

Deno.test("mean and standardDeviation are those of a sample", () => {
  const values = [2, 4, 4, 4, 5, 5, 7, 9];
  assertEquals(mean(values), 5);
  assertAlmostEquals(standardDeviation(values), Math.sqrt(32 / 7), 1e-12);
  assertEquals(standardDeviation([7]), 0);
});
