/** A recursion step's block without packing: every row is computed, and a mask says which rows see which. */
import type { AttentionInput, AttentionSizes } from "./attention.ts";
import { project } from "./projection.ts";
import { rmsNorm } from "./rms_norm.ts";
import { rope } from "./rope.ts";
import { addScaled } from "./rows.ts";
import { sigmoid } from "./sigmoid.ts";
import { type Model, weightOf } from "./weights.ts";

/** Rows of a state of sequences of `tokens` tokens. */
export interface Mask {
  readonly tokens: number;
  /** Rows whose output counts; what the others get means nothing. */
  readonly queries: ArrayLike<number>;
  /** Rows that they see, of their own sequence and up to themselves. */
  readonly keys: ArrayLike<number>;
}

/** Attention over whole sequences with a mask; q and out (rows, H, D), k and v (rows, G, D). */
export function maskedAttention(
  { q, k, v }: Omit<AttentionInput, "spans">,
  { tokens, queries, keys, heads, keyValueHeads, headDim }: Mask & AttentionSizes,
): Float64Array {
  const out = new Float64Array(q.length);
  for (const t of Array.from(queries)) {
    const start = t - t % tokens;
    const seen = Array.from(keys).filter((s) => s >= start && s <= t);
    for (let h = 0; h < heads; h++) {
      const g = Math.floor(h * keyValueHeads / heads);
      const weights = seen.map((s) => {
        let score = 0;
        for (let c = 0; c < headDim; c++) {
          score += q[(t * heads + h) * headDim + c]! * k[(s * keyValueHeads + g) * headDim + c]!;
        }
        return Math.exp(score / Math.sqrt(headDim));
      });
      const sum = weights.reduce((total, weight) => total + weight, 0);
      seen.forEach((s, i) => {
        for (let c = 0; c < headDim; c++) {
          out[(t * heads + h) * headDim + c]! += weights[i]! / sum *
            v[(s * keyValueHeads + g) * headDim + c]!;
        }
      });
    }
  }
  return out;
}

/** One layer on all rows, keys and values from the rows of `source`; x, source and out (rows, C). */
function maskedLayer(
  model: Model,
  { x, source, layer, mask }: { x: Float64Array; source: Float64Array; layer: number; mask: Mask },
): Float64Array {
  const { hiddenSize, intermediateSize, rmsNormEps: eps } = model.config;
  const { numAttentionHeads: heads, numKeyValueHeads: keyValueHeads, headDim } = model.config;
  const positions = Int32Array.from({ length: x.length / hiddenSize }, (_, row) => row % mask.tokens);
  const prefix = `model.layers.${layer}`;
  function norm(x: Float64Array, name: string): Float64Array {
    return rmsNorm({ x, weight: weightOf(model, `${prefix}.${name}.weight`) }, { eps }).out;
  }
  function map(x: Float64Array, name: string, { inFeatures = hiddenSize } = {}): Float64Array {
    return project(model, { name: `${prefix}.${name}.weight`, x, inFeatures });
  }
  const angles = { headDim, theta: model.config.ropeTheta, scaling: model.config.ropeScaling };
  const normed = norm(x, "input_layernorm");
  const normedSource = norm(source, "input_layernorm");
  const attended = maskedAttention({
    q: rope({ x: map(normed, "self_attn.q_proj"), positions }, { ...angles, heads }),
    k: rope({ x: map(normedSource, "self_attn.k_proj"), positions }, { ...angles, heads: keyValueHeads }),
    v: map(normedSource, "self_attn.v_proj"),
  }, { ...mask, heads, keyValueHeads, headDim });
  const out = x.slice();
  addScaled(out, { source: map(attended, "self_attn.o_proj", { inFeatures: heads * headDim }) });
  const second = norm(out, "post_attention_layernorm");
  const up = map(second, "mlp.up_proj");
  const activated = map(second, "mlp.gate_proj").map((value, i) => value * sigmoid(value) * up[i]!);
  addScaled(out, { source: map(activated, "mlp.down_proj", { inFeatures: intermediateSize }) });
  return out;
}

/**
 * The block's output, (rows, C), and what each layer read.
 *
 * @param sources what keys and values are made of, layer by layer; what the layer reads unless given
 */
export function maskedBlock(
  model: Model,
  { x, layers, mask, sources }: {
    x: Float64Array;
    layers: readonly number[];
    mask: Mask;
    sources?: readonly Float64Array[] | undefined;
  },
): { out: Float64Array; inputs: Float64Array[] } {
  const inputs: Float64Array[] = [];
  let out = x;
  layers.forEach((layer, i) => {
    inputs.push(out);
    out = maskedLayer(model, { x: out, source: sources?.[i] ?? out, layer, mask });
  });
  return { out, inputs };
}
