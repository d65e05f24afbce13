import { assertEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { attention } from "./attention.ts";
import { gatherRows } from "./gather_rows.ts";
import { rope } from "./rope.ts";
import { packSpans } from "./spans.ts";

const sizes = { heads: 4, keyValueHeads: 2, headDim: 6 };
const tokens = 7;
/** Active tokens of three sequences of 7 tokens; the second has none. */
const active = [[0, 2, 3, 6], [], [1, 5]];
const indices = active.flatMap((positions, b) => positions.map((position) => b * tokens + position));
const spans = packSpans(active.map(({ length }) => length));

/**
 * Attention over whole sequences with a mask: query t sees the active keys s <= t; written without packing.
 */
function maskedAttention({ q, k, v }: { q: Float64Array; k: Float64Array; v: Float64Array }): Float64Array {
  const { heads, keyValueHeads, headDim } = sizes;
  const out = new Float64Array(q.length);
  for (const t of indices) {
    const start = t - t % tokens;
    for (let h = 0; h < heads; h++) {
      const g = Math.floor(h * keyValueHeads / heads);
      const keys = indices.filter((s) => s >= start && s <= t);
      const weights = keys.map((s) => {
        let score = 0;
        for (let c = 0; c < headDim; c++) {
          score += q[(t * heads + h) * headDim + c]! * k[(s * keyValueHeads + g) * headDim + c]!;
        }
        return Math.exp(score / Math.sqrt(headDim));
      });
      const sum = weights.reduce((total, weight) => total + weight, 0);
      keys.forEach((s, i) => {
        for (let c = 0; c < headDim; c++) {
          out[(t * heads + h) * headDim + c]! += weights[i]! / sum *
            v[(s * keyValueHeads + g) * headDim + c]!;
        }
      });
    }
  }
  return out;
}

const random = createRandom(90);
const queryWidth = sizes.heads * sizes.headDim;
const keyWidth = sizes.keyValueHeads * sizes.headDim;
const q = random.normals(3 * tokens * queryWidth);
const k = random.normals(3 * tokens * keyWidth);
const v = random.normals(3 * tokens * keyWidth);

/** Attention over the gathered rows, queries and keys rotated at the given positions. */
function compactAttention({ positions }: { positions: number[] }): Float64Array {
  const settings = { headDim: sizes.headDim, theta: 100 };
  const gatheredQ = gatherRows({ x: q, indices }, { width: queryWidth });
  const gatheredK = gatherRows({ x: k, indices }, { width: keyWidth });
  return attention({
    q: rope({ x: gatheredQ, positions }, { ...settings, heads: sizes.heads }),
    k: rope({ x: gatheredK, positions }, { ...settings, heads: sizes.keyValueHeads }),
    v: gatherRows({ x: v, indices }, { width: keyWidth }),
    spans,
  }, sizes).out;
}

function maskedRows(): Float64Array {
  const positions = Array.from({ length: 3 * tokens }, (_, index) => index % tokens);
  const settings = { headDim: sizes.headDim, theta: 100 };
  const out = maskedAttention({
    q: rope({ x: q, positions }, { ...settings, heads: sizes.heads }),
    k: rope({ x: k, positions }, { ...settings, heads: sizes.keyValueHeads }),
    v,
  });
  return gatherRows({ x: out, indices }, { width: queryWidth });
}

Deno.test("attention over gathered rows at original positions equals masked attention over all rows", () => {
  assertClose(compactAttention({ positions: active.flat() }), maskedRows(), {
    relative: 1e-13,
    label: "attention",
  });
});

Deno.test("attention over gathered rows at compact positions is something else", () => {
  const positions = active.flatMap(({ length }) => Array.from({ length }, (_, i) => i));
  const compact = compactAttention({ positions });
  const masked = maskedRows();
  const largest = Math.max(...compact.map((value, i) => Math.abs(value - masked[i]!)));
  assertEquals(largest > 1e-2, true, `largest difference ${largest}`);
});
