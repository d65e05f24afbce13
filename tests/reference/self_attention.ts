import { attention, attentionBackward, type AttentionSizes } from "./attention.ts";
import type { Packing } from "./packing.ts";
import { project, projectBackward } from "./projection.ts";
import { rmsNorm, rmsNormBackward } from "./rms_norm.ts";
import { rope, ropeBackward, type RopeSettings } from "./rope.ts";
import { addScaled } from "./rows.ts";
import { addGradient, type Model, weightOf, type Weights } from "./weights.ts";

/** Rotated keys and plain values of one layer, or their gradients; (rows, G, D) each. */
export interface KeyValues {
  readonly k: Float64Array;
  readonly v: Float64Array;
}

/**
 * Keys and values by unique layer. Where they are shared, the first run of a layer puts its own here and
 * every later run reads them; in the backward, the later runs leave their gradients here for the first.
 */
export type SharedKeyValues = Map<number, KeyValues>;

/** What the attention half of a layer computed; every tensor is (rows, ...). */
export interface SelfAttentionTape extends KeyValues {
  /** Whether the keys and values are an earlier run's. */
  readonly isBorrowing: boolean;
  readonly norm: { readonly out: Float64Array; readonly rrms: Float64Array };
  /** Rotated queries, (rows, H, D). */
  readonly q: Float64Array;
  readonly attended: { readonly out: Float64Array; readonly logSumExp: Float64Array };
}

/** Names of a layer's weights here. */
function namesOf(layer: number): Record<"norm" | "q" | "k" | "v" | "o", string> {
  const prefix = `model.layers.${layer}`;
  return {
    norm: `${prefix}.input_layernorm.weight`,
    q: `${prefix}.self_attn.q_proj.weight`,
    k: `${prefix}.self_attn.k_proj.weight`,
    v: `${prefix}.self_attn.v_proj.weight`,
    o: `${prefix}.self_attn.o_proj.weight`,
  };
}

function attentionSizes({ config }: Model): AttentionSizes {
  const { numAttentionHeads: heads, numKeyValueHeads: keyValueHeads, headDim } = config;
  return { heads, keyValueHeads, headDim };
}

function ropeSettings({ config }: Model, heads: number): RopeSettings {
  return { heads, headDim: config.headDim, theta: config.ropeTheta, scaling: config.ropeScaling };
}

/**
 * o(attention(norm(x))) of a layer, without the residual; x and out (rows, C).
 *
 * Queries and keys are rotated at `packing.positions`, so a gathered token keeps its original position.
 */
export function selfAttention(
  model: Model,
  { x, layer, packing, shared }: {
    x: Float64Array;
    layer: number;
    packing: Packing;
    /** Null where every run of a layer has its own keys and values. */
    shared: SharedKeyValues | null;
  },
): { out: Float64Array; tape: SelfAttentionTape } {
  const { hiddenSize: inFeatures, rmsNormEps: eps } = model.config;
  const { positions, spans, last } = packing;
  const sizes = attentionSizes(model);
  const names = namesOf(layer);

  const norm = rmsNorm({ x, weight: weightOf(model, names.norm) }, { eps });
  const input = { x: norm.out, inFeatures };
  const flatQ = project(model, { name: names.q, ...input });
  const q = rope({ x: flatQ, positions }, ropeSettings(model, sizes.heads));
  const borrowed = shared?.get(layer);
  let own = borrowed;
  if (!own) {
    const flatK = project(model, { name: names.k, ...input });
    const k = rope({ x: flatK, positions }, ropeSettings(model, sizes.keyValueHeads));
    own = { k, v: project(model, { name: names.v, ...input }) };
    shared?.set(layer, own);
  }
  const { k, v } = own;
  const attended = attention({ q, k, v, spans, last }, sizes);
  const out = project(model, {
    name: names.o,
    x: attended.out,
    inFeatures: sizes.heads * sizes.headDim,
  });
  return { out, tape: { isBorrowing: borrowed !== undefined, norm, q, k, v, attended } };
}

/** Gradient of the layer's input x, (rows, C); adds the gradients of the weights to `gradients`. */
export function selfAttentionBackward(
  model: Model,
  { x, layer, packing, tape, gradOut, gradients, gradShared }: {
    x: Float64Array;
    layer: number;
    packing: Packing;
    tape: SelfAttentionTape;
    gradOut: Float64Array;
    gradients: Weights;
    /** Gradients that later runs left for the layer's keys and values; null where nothing is shared. */
    gradShared: SharedKeyValues | null;
  },
): Float64Array {
  const { positions, spans, last } = packing;
  const { norm, q, k, v, attended } = tape;
  const sizes = attentionSizes(model);
  const names = namesOf(layer);
  const input = { x: norm.out, inFeatures: model.config.hiddenSize, gradients };

  const gradAttended = projectBackward(model, {
    name: names.o,
    gradOut,
    x: attended.out,
    inFeatures: sizes.heads * sizes.headDim,
    gradients,
  });
  const { gradQ, gradK, gradV } = attentionBackward(
    { gradOut: gradAttended, q, k, v, spans, last, ...attended },
    sizes,
  );
  const later = gradShared?.get(layer);
  if (later) {
    addScaled(gradK, { source: later.k });
    addScaled(gradV, { source: later.v });
  }
  const flatQ = ropeBackward({ gradOut: gradQ, positions }, ropeSettings(model, sizes.heads));
  const gradNormed = projectBackward(model, { name: names.q, gradOut: flatQ, ...input });
  if (tape.isBorrowing) {
    gradShared!.set(layer, { k: gradK, v: gradV });
  } else {
    const flatK = ropeBackward({ gradOut: gradK, positions }, ropeSettings(model, sizes.keyValueHeads));
    addScaled(gradNormed, {
      source: projectBackward(model, { name: names.k, gradOut: flatK, ...input }),
    });
    addScaled(gradNormed, {
      source: projectBackward(model, { name: names.v, gradOut: gradV, ...input }),
    });
  }
  const { gradX, gradWeight } = rmsNormBackward({
    gradOut: gradNormed,
    x,
    weight: weightOf(model, names.norm),
    rrms: norm.rrms,
  });
  addGradient(gradients, { name: names.norm, value: gradWeight });
  return gradX;
}
