import { assertEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { attention, attentionBackward } from "./attention.ts";
import { assertGradient } from "./central_differences.ts";
import { gatherRows } from "./gather_rows.ts";
import { packQueries, packRows } from "./packing.ts";
import { dot } from "./rows.ts";
import { packSpans } from "./spans.ts";

const cases = [
  { name: "one row", lengths: [1], heads: 1, keyValueHeads: 1, headDim: 2 },
  { name: "plain heads", lengths: [5], heads: 3, keyValueHeads: 3, headDim: 3 },
  {
    name: "grouped heads and ragged sequences, one empty",
    lengths: [3, 0, 5, 1],
    heads: 6,
    keyValueHeads: 2,
    headDim: 4,
  },
  { name: "one key/value head", lengths: [2, 4], heads: 3, keyValueHeads: 1, headDim: 5 },
];

for (const { name, lengths, ...sizes } of cases) {
  Deno.test(`attention gradients match central differences: ${name}`, () => {
    const random = createRandom(7);
    const spans = packSpans(lengths);
    const rows = spans.length / 2;
    const q = random.normals(rows * sizes.heads * sizes.headDim, 2);
    const k = random.normals(rows * sizes.keyValueHeads * sizes.headDim, 2);
    const v = random.normals(rows * sizes.keyValueHeads * sizes.headDim);
    const gradOut = random.normals(q.length);
    const forward = attention({ q, k, v, spans }, sizes);
    const { gradQ, gradK, gradV } = attentionBackward({ gradOut, q, k, v, spans, ...forward }, sizes);
    function loss(): number {
      return dot(gradOut, attention({ q, k, v, spans }, sizes).out);
    }
    assertGradient(gradQ, { loss, x: q, label: "q" });
    assertGradient(gradK, { loss, x: k, label: "k" });
    assertGradient(gradV, { loss, x: v, label: "v" });
  });
}

Deno.test("attention of some rows to the keys of all gives what it gives all rows, and its gradients", () => {
  const sizes = { heads: 4, keyValueHeads: 2, headDim: 4 };
  const tokens = 5;
  const indices = Int32Array.of(0, 3, 4, 6, 9);
  const random = createRandom(8);
  const all = random.normals(2 * tokens * 16);
  const k = random.normals(2 * tokens * 8);
  const v = random.normals(2 * tokens * 8);
  const dense = attention({ q: all, k, v, spans: packSpans([tokens, tokens]) }, sizes);
  const q = gatherRows({ x: all, indices }, { width: 16 });
  const { spans, last } = packQueries(indices, { tokens });
  const forward = attention({ q, k, v, spans, last }, sizes);
  assertEquals(forward.out, gatherRows({ x: dense.out, indices }, { width: 16 }));
  assertEquals(forward.logSumExp, gatherRows({ x: dense.logSumExp, indices }, { width: 4 }));
  const gradOut = random.normals(q.length);
  const { gradQ, gradK, gradV } = attentionBackward({ gradOut, q, k, v, spans, last, ...forward }, sizes);
  function loss(): number {
    return dot(gradOut, attention({ q, k, v, spans, last }, sizes).out);
  }
  assertGradient(gradQ, { loss, x: q, label: "q" });
  assertGradient(gradK, { loss, x: k, label: "k" });
  assertGradient(gradV, { loss, x: v, label: "v" });
});

Deno.test("packRows and packQueries keep original positions and differ in the keys that rows see", () => {
  const indices = Int32Array.of(1, 2, 5);
  assertEquals(packRows(indices, { tokens: 4, lengths: [2, 1] }), {
    positions: Int32Array.of(1, 2, 1),
    spans: Int32Array.of(0, 2, 0, 2, 2, 3),
    last: Int32Array.of(0, 1, 2),
  });
  assertEquals(packQueries(indices, { tokens: 4 }), {
    positions: Int32Array.of(1, 2, 1),
    spans: Int32Array.of(0, 4, 0, 4, 4, 8),
    last: Int32Array.of(1, 2, 5),
  });
});

Deno.test("packSpans gives each row the range of its sequence", () => {
  assertEquals(packSpans([2, 0, 1]), Int32Array.of(0, 2, 0, 2, 2, 3));
  assertEquals(packSpans([0, 0]).length, 0);
});

Deno.test("attention of equal scores is the mean of the values so far, in each sequence for itself", () => {
  const { out, logSumExp } = attention(
    {
      q: new Float64Array(5),
      k: Float64Array.of(1, 2, 3, 4, 5),
      v: Float64Array.of(2, 4, 9, 10, 20),
      spans: packSpans([3, 2]),
    },
    { heads: 1, keyValueHeads: 1, headDim: 1 },
  );
  assertClose(out, [2, 3, 5, 10, 15], { relative: 1e-15, label: "out" });
  assertClose(logSumExp, [1, 2, 3, 1, 2].map(Math.log), { relative: 1e-15, label: "logSumExp" });
});

Deno.test("attention heads of a group share neighbouring query heads", () => {
  const v = Float64Array.of(10, 20);
  const { out } = attention(
    { q: new Float64Array(4), k: new Float64Array(2), v, spans: packSpans([1]) },
    { heads: 4, keyValueHeads: 2, headDim: 1 },
  );
  assertEquals(out, Float64Array.of(10, 10, 20, 20));
});

Deno.test("attention keeps finite where scores are far beyond the range of exp", () => {
  const { out } = attention(
    {
      q: Float64Array.of(1, 1),
      k: Float64Array.of(5000, 4000),
      v: Float64Array.of(1, 2),
      spans: packSpans([2]),
    },
    { heads: 1, keyValueHeads: 1, headDim: 1 },
  );
  assertEquals(out, Float64Array.of(1, 1));
});
