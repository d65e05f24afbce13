/**
 * One Llama layer over packed rows, forward and backward side by side:
 *
 *   mid = x + Wo Attention(RoPE(Wqkv RMSNorm(x)))        out = mid + Wdown SwiGLU(Wgu RMSNorm(mid))
 */
import type { Commands } from "../gpu/commands.ts";
import { add } from "../gpu/kernels/add.ts";
import {
  attention,
  attentionBackward,
  type AttentionSettings,
  fusedLayout,
} from "../gpu/kernels/attention.ts";
import { linear, linearBackwardInput, linearBackwardWeight } from "../gpu/kernels/linear.ts";
import { rmsNorm, rmsNormBackward } from "../gpu/kernels/rms_norm.ts";
import { rope, ropeBackward, type RopeSettings } from "../gpu/kernels/rope.ts";
import { swiglu, swigluBackward } from "../gpu/kernels/swiglu.ts";
import type { Allocator } from "../gpu/memory.ts";
import type { Packing } from "../gpu/packing.ts";
import { createTensor, type Tensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { LayerViews } from "./parameters.ts";

/** What one application of a layer leaves for its backward pass. M rows at most. */
export interface LayerActivations {
  /** (M, C) */
  readonly inputNormed: Tensor;
  /** (M) */
  readonly inputRrms: Tensor;
  /** (M, (H + 2 G) D): queries, keys and values, rotated. */
  readonly qkv: Tensor;
  /** (M, H D) */
  readonly attended: Tensor;
  /** (M, H) */
  readonly logSumExp: Tensor;
  /** (M, C) */
  readonly mid: Tensor;
  /** (M, C) */
  readonly midNormed: Tensor;
  /** (M) */
  readonly midRrms: Tensor;
  /** (M, 2 F) */
  readonly gateUp: Tensor;
  /** (M, F) */
  readonly activated: Tensor;
  /** (M, C) */
  readonly out: Tensor;
}

/** Scratch of the layers: nothing in it outlives a layer. */
export interface LayerScratch {
  /** (M, C): a branch before it joins the residual stream; the gradient of a normed input. */
  readonly branch: Tensor;
  /** (M, (H + 2 G) D) */
  readonly gradQkv: Tensor;
  /** (M, H D) */
  readonly gradAttended: Tensor;
  /** (M, H) */
  readonly delta: Tensor;
  /** (M, 2 F) */
  readonly gradGateUp: Tensor;
  /** (M, F) */
  readonly gradActivated: Tensor;
}

/** What every layer of a model shares. */
export interface LayerContext {
  readonly config: ModelConfig;
  /** Most tokens of a sequence. */
  readonly longest: number;
  /** (positions, D / 2, 2) */
  readonly ropeTable: Tensor;
  readonly scratch: LayerScratch;
}

function widths(
  { hiddenSize, intermediateSize, numAttentionHeads, numKeyValueHeads, headDim }: ModelConfig,
): {
  hidden: number;
  qkv: number;
  attended: number;
  intermediate: number;
} {
  const qkv = (numAttentionHeads + 2 * numKeyValueHeads) * headDim;
  return { hidden: hiddenSize, qkv, attended: numAttentionHeads * headDim, intermediate: intermediateSize };
}

function ropeShape({ numAttentionHeads: h, numKeyValueHeads: g, headDim }: ModelConfig): RopeSettings {
  return { heads: h + g, headDim, stride: (h + 2 * g) * headDim };
}

function attentionShape({ config, longest }: LayerContext): AttentionSettings {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = config;
  const sizes = { heads, kvHeads, headDim };
  return { ...sizes, layout: fusedLayout(sizes), longest };
}

export function allocateLayerActivations(
  device: Allocator,
  { config, rows }: { config: ModelConfig; rows: number },
): LayerActivations {
  const { hidden, qkv, attended, intermediate } = widths(config);
  const tensor = (label: string, ...shape: number[]): Tensor =>
    createTensor(device, { shape: [rows, ...shape], label });
  return {
    inputNormed: tensor("input normed", hidden),
    inputRrms: tensor("input rrms"),
    qkv: tensor("qkv", qkv),
    attended: tensor("attended", attended),
    logSumExp: tensor("log-sum-exp", config.numAttentionHeads),
    mid: tensor("mid", hidden),
    midNormed: tensor("mid normed", hidden),
    midRrms: tensor("mid rrms"),
    gateUp: tensor("gate and up", 2 * intermediate),
    activated: tensor("activated", intermediate),
    out: tensor("layer output", hidden),
  };
}

/** Scratch for at most `rows` rows; the gradients' part is left minimal for a model that only runs forward. */
export function allocateLayerScratch(
  device: Allocator,
  { config, rows, backward }: { config: ModelConfig; rows: number; backward: boolean },
): LayerScratch {
  const { hidden, qkv, attended, intermediate } = widths(config);
  const gradRows = backward ? rows : 0;
  const tensor = (label: string, ...shape: number[]): Tensor => createTensor(device, { shape, label });
  return {
    branch: tensor("branch", rows, hidden),
    gradQkv: tensor("qkv gradient", gradRows, qkv),
    gradAttended: tensor("attended gradient", gradRows, attended),
    delta: tensor("attention delta", gradRows, config.numAttentionHeads),
    gradGateUp: tensor("gate and up gradient", gradRows, 2 * intermediate),
    gradActivated: tensor("activated gradient", gradRows, intermediate),
  };
}

/** Records the layer on x (M, C) for the packed rows; the result is `activations.out`. */
export function layerForward(
  commands: Commands,
  { x, weights, activations }: { x: Tensor; weights: LayerViews; activations: LayerActivations },
  { context, packing }: { context: LayerContext; packing: Packing },
): void {
  const { config, ropeTable, scratch: { branch } } = context;
  const { rows } = packing;
  const {
    inputNormed,
    inputRrms,
    qkv,
    attended,
    logSumExp,
    mid,
    midNormed,
    midRrms,
    gateUp,
    activated,
    out,
  } = activations;

  rmsNorm(commands, { x, weight: weights.inputNorm, out: inputNormed, rrms: inputRrms }, {
    rows,
    eps: config.rmsNormEps,
  });
  linear(commands, { x: inputNormed, weight: weights.qkv, out: qkv }, { rows });
  rope(commands, { x: qkv, packing, table: ropeTable }, ropeShape(config));
  attention(commands, { q: qkv, kv: qkv, packing, out: attended, logSumExp }, attentionShape(context));
  linear(commands, { x: attended, weight: weights.output, out: branch }, { rows });
  add(commands, { a: x, b: branch, out: mid }, { rows });

  rmsNorm(commands, { x: mid, weight: weights.postAttentionNorm, out: midNormed, rrms: midRrms }, {
    rows,
    eps: config.rmsNormEps,
  });
  linear(commands, { x: midNormed, weight: weights.gateUp, out: gateUp }, { rows });
  swiglu(commands, { gateUp, out: activated }, { rows });
  linear(commands, { x: activated, weight: weights.down, out: branch }, { rows });
  add(commands, { a: mid, b: branch, out }, { rows });
}

/**
 * Records the layer's backward pass. `gradState` (M, C) holds the gradient of `activations.out` and becomes that of x;
 * the weights' gradients are added to.
 */
export function layerBackward(
  commands: Commands,
  { x, weights, gradients, activations, gradState }: {
    x: Tensor;
    weights: LayerViews;
    gradients: LayerViews;
    activations: LayerActivations;
    gradState: Tensor;
  },
  { context, packing }: { context: LayerContext; packing: Packing },
): void {
  const { config, ropeTable, scratch } = context;
  const { rows } = packing;
  const { inputNormed, inputRrms, qkv, attended, logSumExp, mid, midNormed, midRrms, gateUp, activated } =
    activations;
  const gradNormed = scratch.branch;

  linearBackwardInput(commands, { gradOut: gradState, weight: weights.down, gradX: scratch.gradActivated }, {
    rows,
  });
  linearBackwardWeight(commands, { gradOut: gradState, x: activated, gradWeight: gradients.down }, { rows });
  swigluBackward(commands, { gateUp, gradOut: scratch.gradActivated, gradGateUp: scratch.gradGateUp }, {
    rows,
  });
  linearBackwardInput(commands, { gradOut: scratch.gradGateUp, weight: weights.gateUp, gradX: gradNormed }, {
    rows,
  });
  linearBackwardWeight(
    commands,
    { gradOut: scratch.gradGateUp, x: midNormed, gradWeight: gradients.gateUp },
    { rows },
  );
  rmsNormBackward(commands, {
    x: mid,
    weight: weights.postAttentionNorm,
    rrms: midRrms,
    gradOut: gradNormed,
    gradX: gradState,
    gradWeight: gradients.postAttentionNorm,
  }, { rows, accumulate: true });

  linearBackwardInput(commands, { gradOut: gradState, weight: weights.output, gradX: scratch.gradAttended }, {
    rows,
  });
  linearBackwardWeight(commands, { gradOut: gradState, x: attended, gradWeight: gradients.output }, { rows });
  attentionBackward(commands, {
    q: qkv,
    kv: qkv,
    packing,
    out: attended,
    logSumExp,
    gradOut: scratch.gradAttended,
    gradQ: scratch.gradQkv,
    gradKv: scratch.gradQkv,
    delta: scratch.delta,
  }, attentionShape(context));
  ropeBackward(commands, { x: scratch.gradQkv, packing, table: ropeTable }, ropeShape(config));
  linearBackwardInput(commands, { gradOut: scratch.gradQkv, weight: weights.qkv, gradX: gradNormed }, {
    rows,
  });
  linearBackwardWeight(commands, { gradOut: scratch.gradQkv, x: inputNormed, gradWeight: gradients.qkv }, {
    rows,
  });
  rmsNormBackward(commands, {
    x,
    weight: weights.inputNorm,
    rrms: inputRrms,
    gradOut: gradNormed,
    gradX: gradState,
    gradWeight: gradients.inputNorm,
  }, { rows, accumulate: true });
}
