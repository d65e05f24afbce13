import { linear, linearInputGradient, type LinearSizes, linearWeightGradient } from "./linear.ts";
import type { Packing } from "./packing.ts";
import { project, projectBackward } from "./projection.ts";
import { rmsNorm, rmsNormBackward } from "./rms_norm.ts";
import { addScaled } from "./rows.ts";
import {
  selfAttention,
  selfAttentionBackward,
  type SelfAttentionTape,
  type SharedKeyValues,
} from "./self_attention.ts";
import { swiglu, swigluBackward } from "./swiglu.ts";
import { addGradient, type Model, weightOf, type Weights } from "./weights.ts";

/** What one layer computed, kept for its backward; every tensor is (rows, ...). */
export interface LayerTape {
  /** Index among the unique layers. */
  readonly layer: number;
  readonly packing: Packing;
  /** (rows, C). */
  readonly x: Float64Array;
  readonly attention: SelfAttentionTape;
  /** x + attention, (rows, C). */
  readonly middle: Float64Array;
  readonly norm: { readonly out: Float64Array; readonly rrms: Float64Array };
  /** [gate | up] of each row, (rows, 2F). */
  readonly gateUp: Float64Array;
  /** (rows, F). */
  readonly activated: Float64Array;
  /** middle + feed-forward, (rows, C). */
  readonly out: Float64Array;
}

/** Names of the weights of a layer's feed-forward half. */
function namesOf(layer: number): Record<"norm" | "gate" | "up" | "down", string> {
  const prefix = `model.layers.${layer}`;
  return {
    norm: `${prefix}.post_attention_layernorm.weight`,
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

function gateUpSizes({ config: { hiddenSize, intermediateSize } }: Model): LinearSizes {
  return { inFeatures: hiddenSize, outFeatures: 2 * intermediateSize };
}

/** Sum of two tensors of one shape. */
function add(a: Float64Array, b: Float64Array): Float64Array {
  const sum = a.slice();
  addScaled(sum, { source: b });
  return sum;
}

/**
 * A pre-norm Llama layer: middle = x + selfAttention(x), out = middle + down(swiglu(gate, up of
 * norm(middle))).
 *
 * x (rows, C).
 */
export function layerForward(
  model: Model,
  { x, layer, packing, shared }: {
    x: Float64Array;
    layer: number;
    packing: Packing;
    shared: SharedKeyValues | null;
  },
): LayerTape {
  const { rmsNormEps: eps, intermediateSize } = model.config;
  const names = namesOf(layer);
  const { out: attended, tape: attention } = selfAttention(model, { x, layer, packing, shared });
  const middle = add(x, attended);
  const norm = rmsNorm({ x: middle, weight: weightOf(model, names.norm) }, { eps });
  const gateUp = linear({ x: norm.out, weight: gateUpWeight(model, names) }, gateUpSizes(model));
  const activated = swiglu({ gateUp }, model.config);
  const down = project(model, { name: names.down, x: activated, inFeatures: intermediateSize });
  return { layer, packing, x, attention, middle, norm, gateUp, activated, out: add(middle, down) };
}

/** Gradient of a layer's input, (rows, C); adds the gradients of the layer's weights to `gradients`. */
export function layerBackward(
  model: Model,
  { tape, gradOut, gradients, gradShared }: {
    tape: LayerTape;
    gradOut: Float64Array;
    gradients: Weights;
    gradShared: SharedKeyValues | null;
  },
): Float64Array {
  const { x, layer, packing, attention, middle, norm, gateUp, activated } = tape;
  const names = namesOf(layer);
  const gradActivated = projectBackward(model, {
    name: names.down,
    gradOut,
    x: activated,
    inFeatures: model.config.intermediateSize,
    gradients,
  });
  const gradGateUp = swigluBackward({ gradOut: gradActivated, gateUp }, model.config);
  const gradWeight = linearWeightGradient({ gradOut: gradGateUp, x: norm.out }, gateUpSizes(model));
  addGradient(gradients, { name: names.gate, value: gradWeight.subarray(0, gradWeight.length / 2) });
  addGradient(gradients, { name: names.up, value: gradWeight.subarray(gradWeight.length / 2) });
  const gradNormed = linearInputGradient(
    { gradOut: gradGateUp, weight: gateUpWeight(model, names) },
    gateUpSizes(model),
  );
  const normed = rmsNormBackward({
    gradOut: gradNormed,
    x: middle,
    weight: weightOf(model, names.norm),
    rrms: norm.rrms,
  });
  addGradient(gradients, { name: names.norm, value: normed.gradWeight });
  const gradMiddle = add(gradOut, normed.gradX);
  const gradX = selfAttentionBackward(model, {
    x,
    layer,
    packing,
    tape: attention,
    gradOut: gradMiddle,
    gradients,
    gradShared,
  });
  return add(gradMiddle, gradX);
}
