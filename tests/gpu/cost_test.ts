import { assertEquals } from "@std/assert";
import { seenKeys, workOf } from "../../gpu/cost.ts";
import { fullRecords } from "../../gpu/packing.ts";
import type { Packing } from "../../gpu/packing.ts";
import type { Rows } from "../../gpu/rows.ts";

/** What one row sees of a sequence of n tokens, summed over its rows. */
const triangle = (n: number): number => (n * (n + 1)) / 2;

Deno.test("seenKeys counts the causal pairs of packed sequences, and every key once", () => {
  const records = fullRecords([5, 1, 7]);
  const pairs = triangle(5) + triangle(1) + triangle(7);
  assertEquals(seenKeys(records, { count: 13, sees: "packed" }), { pairs, keys: 13 });
  assertEquals(seenKeys(records, { count: 5, sees: "packed" }), { pairs: triangle(5), keys: 5 });
  assertEquals(seenKeys(records, { count: 0, sees: "packed" }), { pairs: 0, keys: 0 });
});

Deno.test("seenKeys takes the state's keys up to each chosen row's position", () => {
  // Tokens 1 and 4 of a first sequence, token 2 of a second.
  const records = Uint32Array.of(1, 1, 0, 2, 4, 4, 0, 2, 7, 2, 2, 3);
  assertEquals(seenKeys(records, { count: 3, sees: "state" }), { pairs: 2 + 5 + 3, keys: 5 + 3 });
  assertEquals(seenKeys(records, { count: 3, sees: "packed" }), { pairs: 1 + 2 + 1, keys: 2 + 1 });
});

Deno.test("seenKeys takes a cache's entries of each text once", () => {
  // Two rows of the text whose table begins at 0, one of that at 64: entries 0 to w.
  const records = Uint32Array.of(0, 9, 0, 9, 1, 10, 0, 10, 2, 3, 64, 3);
  assertEquals(seenKeys(records, { count: 3, sees: "cache" }), { pairs: 10 + 11 + 4, keys: 11 + 4 });
});

const ROWS = { maximum: 8 } as Rows;

Deno.test("workOf adds what is fixed and what rows cost, and is nothing without rows", () => {
  const cost = { rows: ROWS, fixed: { bytes: 100 }, perRow: { flops: 6, bytes: 4 } };
  assertEquals(workOf(cost, { count: 3, records: null }), { flops: 18, bytes: 112 });
  assertEquals(workOf(cost, { count: 0, records: null }), { flops: 0, bytes: 0 });
  assertEquals(workOf({ fixed: { flops: 7 } }, { count: 0, records: null }), { flops: 7, bytes: 0 });
});

Deno.test("workOf takes attention's pairs and keys from the records that were found", () => {
  const packing = {} as Packing;
  const attention = { packing, sees: "packed", flopsPerPair: 10, bytesPerKey: 3 } as const;
  const cost = { rows: ROWS, perRow: { bytes: 1 }, attention };
  const found = { count: 4, records: fullRecords([4, 4]) };
  assertEquals(workOf(cost, found), { flops: 10 * triangle(4), bytes: 4 * 3 + 4 });
});
