import { attention, attentionBackward } from "./attention.ts";
import { linear, linearInputGradient, type LinearSizes, linearWeightGradient } from "./linear.ts";
import { rmsNorm, rmsNormBackward } from "./rms_norm.ts";
import { rope, ropeBackward } from "./rope.ts";
import { addScaled } from "./rows.ts";
import { swiglu, swigluBackward } from "./swiglu.ts";
import { addGradient, type Model, weightOf, type Weights } from "./weights.ts";

/**
 * Where packed rows stand: positions (rows) in the original sequence, spans (rows, 2) of each row's sequence.
 */
export interface Packing {
  readonly positions: Int32Array;
  readonly spans: Int32Array;
}

/** What one layer computed, kept for its backward; every tensor is (rows, ...). */
export interface LayerTape {
  /** Index among the unique layers. */
  readonly layer: number;
  readonly packing: Packing;
  /** (rows, C). */
  readonly x: Float64Array;
  readonly attentionNorm: { out: Float64Array; rrms: Float64Array };
  /** Rotated queries (rows, H, D), rotated keys and plain values (rows, G, D). */
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
  readonly attended: { out: Float64Array; logSumExp: Float64Array };
  /** x + attention, (rows, C). */
  readonly middle: Float64Array;
  readonly feedForwardNorm: { out: Float64Array; rrms: Float64Array };
  /** [gate | up] of each row, (rows, 2F). */
  readonly gateUp: Float64Array;
  /** (rows, F). */
  readonly activated: Float64Array;
  /** middle + feed-forward, (rows, C). */
  readonly out: Float64Array;
}

/** Sizes of the linear maps of a layer, by the role in their name. */
function linearSizes(
  { config }: Model,
): Record<"query" | "keyValue" | "output" | "gateUp" | "down", LinearSizes> {
  const { hiddenSize, intermediateSize, numAttentionHeads, numKeyValueHeads, headDim } = config;
  return {
    query: { inFeatures: hiddenSize, outFeatures: numAttentionHeads * headDim },
    keyValue: { inFeatures: hiddenSize, outFeatures: numKeyValueHeads * headDim },
    output: { inFeatures: numAttentionHeads * headDim, outFeatures: hiddenSize },
    gateUp: { inFeatures: hiddenSize, outFeatures: 2 * intermediateSize },
    down: { inFeatures: intermediateSize, outFeatures: hiddenSize },
  };
}

/** Names of a layer's weights. */
function layerNames(
  layer: number,
): Record<"norm1" | "q" | "k" | "v" | "o" | "norm2" | "gate" | "up" | "down", string> {
  const prefix = `model.layers.${layer}`;
  return {
    norm1: `${prefix}.input_layernorm.weight`,
    q: `${prefix}.self_attn.q_proj.weight`,
    k: `${prefix}.self_attn.k_proj.weight`,
    v: `${prefix}.self_attn.v_proj.weight`,
    o: `${prefix}.self_attn.o_proj.weight`,
    norm2: `${prefix}.post_attention_layernorm.weight`,
    gate: `${prefix}.mlp.gate_proj.weight`,
    up: `${prefix}.mlp.up_proj.weight`,
    down: `${prefix}.mlp.down_proj.weight`,
  };
}

/** Gate and up projection as one map: (2F, C), the gate's rows first. */
function gateUpWeight(model: Model, names: { gate: string; up: string }): Float64Array {
  const gate = weightOf(model, names.gate);
  const weight = new Float64Array(2 * gate.length);
  weight.set(gate);
  weight.set(weightOf(model, names.up), gate.length);
  return weight;
}

function ropeSettings({ config }: Model, heads: number): { heads: number; headDim: number; theta: number } {
  return { heads, headDim: config.headDim, theta: config.ropeTheta };
}

/** Sum of two tensors of one shape. */
function add(a: Float64Array, b: Float64Array): Float64Array {
  const sum = a.slice();
  addScaled(sum, { source: b });
  return sum;
}

/**
 * A pre-norm Llama layer: middle = x + o(attention(norm1(x))), out = middle + down(swiglu(gate, up of
 * norm2(middle))).
 *
 * Queries and keys are rotated at `packing.positions`, so a gathered token keeps its original position. x
 * (rows, C).
 */
export function layerForward(
  model: Model,
  { x, layer, packing }: { x: Float64Array; layer: number; packing: Packing },
): LayerTape {
  const { rmsNormEps: eps, numAttentionHeads: heads, numKeyValueHeads: keyValueHeads, headDim } =
    model.config;
  const sizes = linearSizes(model);
  const names = layerNames(layer);
  const positions = packing.positions;

  const attentionNorm = rmsNorm({ x, weight: weightOf(model, names.norm1) }, { eps });
  const normed = attentionNorm.out;
  const flatQ = linear({ x: normed, weight: weightOf(model, names.q) }, sizes.query);
  const flatK = linear({ x: normed, weight: weightOf(model, names.k) }, sizes.keyValue);
  const q = rope({ x: flatQ, positions }, ropeSettings(model, heads));
  const k = rope({ x: flatK, positions }, ropeSettings(model, keyValueHeads));
  const v = linear({ x: normed, weight: weightOf(model, names.v) }, sizes.keyValue);
  const attended = attention({ q, k, v, spans: packing.spans }, { heads, keyValueHeads, headDim });
  const middle = add(x, linear({ x: attended.out, weight: weightOf(model, names.o) }, sizes.output));

  const feedForwardNorm = rmsNorm({ x: middle, weight: weightOf(model, names.norm2) }, { eps });
  const gateUp = linear({ x: feedForwardNorm.out, weight: gateUpWeight(model, names) }, sizes.gateUp);
  const activated = swiglu({ gateUp }, model.config);
  const out = add(middle, linear({ x: activated, weight: weightOf(model, names.down) }, sizes.down));
  return {
    layer,
    packing,
    x,
    attentionNorm,
    q,
    k,
    v,
    attended,
    middle,
    feedForwardNorm,
    gateUp,
    activated,
    out,
  };
}

/** Gradient of a layer's input, (rows, C); adds the gradients of the layer's weights to `gradients`. */
export function layerBackward(
  model: Model,
  { tape, gradOut, gradients }: { tape: LayerTape; gradOut: Float64Array; gradients: Weights },
): Float64Array {
  const { numAttentionHeads: heads, numKeyValueHeads: keyValueHeads, headDim } = model.config;
  const sizes = linearSizes(model);
  const names = layerNames(tape.layer);
  const { packing: { positions, spans }, attentionNorm, feedForwardNorm, attended, q, k, v } = tape;

  /** Backward of y = x W^T for the weight of that name: adds to its gradient, returns that of x. */
  function linearBackward(
    name: string,
    { gradOut, x, size }: { gradOut: Float64Array; x: Float64Array; size: LinearSizes },
  ): Float64Array {
    addGradient(gradients, { name, value: linearWeightGradient({ gradOut, x }, size) });
    return linearInputGradient({ gradOut, weight: weightOf(model, name) }, size);
  }

  const gradActivated = linearBackward(names.down, { gradOut, x: tape.activated, size: sizes.down });
  const gradGateUp = swigluBackward({ gradOut: gradActivated, gateUp: tape.gateUp }, model.config);
  const gradWeight = linearWeightGradient({ gradOut: gradGateUp, x: feedForwardNorm.out }, sizes.gateUp);
  addGradient(gradients, { name: names.gate, value: gradWeight.subarray(0, gradWeight.length / 2) });
  addGradient(gradients, { name: names.up, value: gradWeight.subarray(gradWeight.length / 2) });
  const norm2 = rmsNormBackward({
    gradOut: linearInputGradient({ gradOut: gradGateUp, weight: gateUpWeight(model, names) }, sizes.gateUp),
    x: tape.middle,
    weight: weightOf(model, names.norm2),
    rrms: feedForwardNorm.rrms,
  });
  addGradient(gradients, { name: names.norm2, value: norm2.gradWeight });
  const gradMiddle = add(gradOut, norm2.gradX);

  const gradAttended = linearBackward(names.o, { gradOut: gradMiddle, x: attended.out, size: sizes.output });
  const { gradQ, gradK, gradV } = attentionBackward(
    { gradOut: gradAttended, q, k, v, spans, ...attended },
    { heads, keyValueHeads, headDim },
  );
  const flatQ = ropeBackward({ gradOut: gradQ, positions }, ropeSettings(model, heads));
  const flatK = ropeBackward({ gradOut: gradK, positions }, ropeSettings(model, keyValueHeads));
  const gradNormed = linearBackward(names.q, { gradOut: flatQ, x: attentionNorm.out, size: sizes.query });
  const shared = { x: attentionNorm.out, size: sizes.keyValue };
  addScaled(gradNormed, { source: linearBackward(names.k, { gradOut: flatK, ...shared }) });
  addScaled(gradNormed, { source: linearBackward(names.v, { gradOut: gradV, ...shared }) });
  const norm1 = rmsNormBackward({
    gradOut: gradNormed,
    x: tape.x,
    weight: weightOf(model, names.norm1),
    rrms: attentionNorm.rrms,
  });
  addGradient(gradients, { name: names.norm1, value: norm1.gradWeight });
  return add(gradMiddle, norm1.gradX);
}
