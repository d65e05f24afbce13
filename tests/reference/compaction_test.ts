import { assertEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { attention } from "./attention.ts";
import { gatherRows } from "./gather_rows.ts";
import { maskedAttention, maskedBlock } from "./masked_block.ts";
import { rope } from "./rope.ts";
import { layerPlan } from "./sharing.ts";
import { packSpans } from "./spans.ts";
import { randomIds, randomModel, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "./tiny_model.ts";
import { forward } from "./transformer.ts";
import type { Model } from "./weights.ts";

const sizes = { heads: 4, keyValueHeads: 2, headDim: 6 };
const tokens = 7;
/** Active tokens of three sequences of 7 tokens; the second has none. */
const active = [[0, 2, 3, 6], [], [1, 5]];
const indices = active.flatMap((positions, b) => positions.map((position) => b * tokens + position));
const spans = packSpans(active.map(({ length }) => length));

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
  }, { ...sizes, tokens, queries: indices, keys: indices });
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

const tinyTokens = 9;

/**
 * State after recursion steps that run all rows through the block, masked to the given ones.
 *
 * Step r writes x + w z with gates, z without.
 */
function maskedRecursion(
  model: Model,
  { x, steps }: { x: Float64Array; steps: readonly { indices: Int32Array; weights?: Float64Array }[] },
): Float64Array {
  const { hiddenSize: width, kvCache, recursion } = model.config;
  const { block: layers } = layerPlan(recursion!);
  const all = Array.from({ length: x.length / width }, (_, row) => row);
  let sources: readonly Float64Array[] | undefined;
  let state = x;
  for (const { indices, weights } of steps) {
    const keys = kvCache === "shared" ? all : indices;
    const mask = { tokens: tinyTokens, queries: indices, keys };
    const { out, inputs } = maskedBlock(model, { x: state, layers, mask, sources });
    if (kvCache === "shared") sources ??= inputs;
    const before = state;
    state = before.slice();
    indices.forEach((index, i) => {
      for (let at = index * width; at < (index + 1) * width; at++) {
        state[at] = weights ? before[at]! + weights[i]! * out[at]! : out[at]!;
      }
    });
  }
  return state;
}

for (const kvCache of ["recursion_wise", "shared"] as const) {
  for (const sharing of ["cycle", "middle_cycle"] as const) {
    const recursion = { sharing, numRecursions: 3, blockLayers: 2 };

    Deno.test(`token choice on packed tokens equals masks over all tokens: ${sharing}, ${kvCache}`, () => {
      const config = tinyRecursiveConfig(recursion, { router: tinyTokenRouter(), kvCache });
      const model = randomModel(config, { random: createRandom(95) });
      const ids = randomIds(config, { random: createRandom(92), count: 2 * tinyTokens });
      const { tokenChoice, depths } = forward(model, { ids, sequences: 2 });
      assertEquals(new Set(depths).size, 3);
      const { router: { x }, choice, steps, out } = tokenChoice!;
      const z = maskedRecursion(model, { x, steps: steps.map(({ indices }) => ({ indices })) });
      const gated = z.map((value, at) => x[at]! + choice.gates[Math.floor(at / config.hiddenSize)]! * value);
      assertClose(out, gated, { relative: 1e-13, label: "state" });
    });

    for (const selection of [{ kind: "top_k" }, { kind: "threshold", threshold: 0 }] as const) {
      const name = `expert choice by ${selection.kind}`;
      Deno.test(`${name} on packed tokens equals masks over all tokens: ${sharing}, ${kvCache}`, () => {
        const config = tinyRecursiveConfig(recursion, { router: tinyRouter({ alpha: 1 }), kvCache });
        const model = randomModel(config, { random: createRandom(95) });
        const ids = randomIds(config, { random: createRandom(92), count: 2 * tinyTokens });
        const { steps, depths } = forward(model, { ids, sequences: 2, selection });
        assertEquals(new Set(depths).size, 3);
        const { x } = steps[0]!.router;
        assertClose(steps.at(-1)!.out, maskedRecursion(model, { x, steps }), {
          relative: 1e-13,
          label: "state",
        });
      });
    }
  }
}
