/**
 * One Llama layer over packed rows, forward and backward side by side:
 *
 *   mid = x + Wo Attention(RoPE(Wqkv RMSNorm(x)))        out = mid + Wdown SwiGLU(Wgu RMSNorm(mid))
 *
 * Its keys and values are those of the packed rows, of the same layer at the first recursion step, or of a cache.
 */
import type { Commands } from "../gpu/commands.ts";
import { attention, attentionBackward, type AttentionSettings } from "../gpu/kernels/attention.ts";
import { fusedLayout } from "../gpu/kernels/attention_heads.ts";
import { attentionCached, MAX_CACHED_ROWS } from "../gpu/kernels/attention_cached.ts";
import { cacheAppend } from "../gpu/kernels/cache_append.ts";
import { castToF16, castToF32 } from "../gpu/kernels/cast.ts";
import {
  linearAdd,
  linearBackwardInput,
  linearBackwardWeight,
  normLinear,
  swigluLinearAdd,
} from "../gpu/kernels/linear.ts";
import { rmsNorm, rmsNormBackward } from "../gpu/kernels/rms_norm.ts";
import { rope, ropeBackward, type RopeSettings } from "../gpu/kernels/rope.ts";
import { swiglu, swigluBackward } from "../gpu/kernels/swiglu.ts";
import type { Packing } from "../gpu/packing.ts";
import { type Tensor, viewTensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { type LayerActivations, type LayerContext, type LayerKeys, STORED_NAMES } from "./layer_buffers.ts";
import type { LayerWeights } from "./model_weights.ts";
import type { LayerViews } from "./parameter_layout.ts";

/** The projection as a layer uses it: all of it, or only its queries. */
function projection(
  { numAttentionHeads: h, numKeyValueHeads: g, headDim }: ModelConfig,
  keys: LayerKeys,
): { weight: "qkv" | "q"; heads: RopeSettings } {
  const makesKeys = keys.kind === "own" || (keys.kind === "cache" && keys.appends !== null);
  return makesKeys
    ? { weight: "qkv", heads: { heads: h + g, headDim, stride: (h + 2 * g) * headDim } }
    : { weight: "q", heads: { heads: h, headDim, stride: h * headDim } };
}

function attentionShape({ config, longest }: LayerContext, keys: LayerKeys): AttentionSettings {
  const { numAttentionHeads: heads, numKeyValueHeads: kvHeads, headDim } = config;
  const sizes = { heads, kvHeads, headDim, longest };
  if (keys.kind === "cache") {
    const layout = { kOffset: 0, vOffset: kvHeads * headDim };
    return { ...sizes, layout, keys: { kind: "cache", pages: keys.cache.pages } };
  }
  const layout = fusedLayout(sizes);
  if (keys.kind === "own") return { ...sizes, layout };
  return { ...sizes, layout, keys: { kind: "state", count: keys.shared.qkv.shape[0]!, tokens: longest } };
}

/** A layer and its input x (M, C). */
export interface LayerApplication {
  readonly x: Tensor;
  readonly weights: LayerWeights;
  readonly activations: LayerActivations;
  readonly keys: LayerKeys;
}

/** The rows that a layer works on, and what it shares with the others. */
interface LayerPlace {
  readonly context: LayerContext;
  readonly packing: Packing;
}

/** Records the layer for the packed rows, and what is stored of it; the result is `activations.out`. */
export function layerForward(commands: Commands, application: LayerApplication, place: LayerPlace): void {
  const { weights, activations } = application;
  const { mid, gateUp, activated, out, stored } = activations;
  const { context: { backward: keeps }, packing: { rows } } = place;
  gateUpForward(commands, application, place);
  swigluLinearAdd(
    commands,
    { gateUp, weight: weights.down, residual: mid, out, activated },
    { rows, keeps },
  );
  for (const name of STORED_NAMES) {
    const halves = stored[name];
    if (halves) castToF16(commands, { x: activations[name], halves }, { rows });
  }
}

/**
 * Records once more what `layerForward` leaves for the backward pass: all activations but `out`, by the same kernels
 * from the same input, so that every bit is the same, but for what f16 rounded of an input that is stored so. Keys that
 * later steps read are written over with themselves; those steps' gradients are done by then.
 */
export function layerRecompute(commands: Commands, application: LayerApplication, place: LayerPlace): void {
  const { gateUp, activated } = application.activations;
  gateUpForward(commands, application, place);
  swiglu(commands, { gateUp, out: activated }, { rows: place.packing.rows });
}

/**
 * Records that what `layerForward` left for the backward pass, and other layers have written over, is there again: what
 * is stored in f16, and both norms and the SwiGLU, which are made of it. The norms' factors are those of the rounded
 * numbers, which the backward pass goes by.
 */
export function layerRestore(
  commands: Commands,
  { x, weights, activations }: LayerApplication,
  { context: { config }, packing: { rows } }: LayerPlace,
): void {
  const { stored, inputNormed, inputRrms, mid, midNormed, midRrms, gateUp, activated } = activations;
  for (const name of STORED_NAMES) {
    const halves = stored[name];
    // Its own output no layer needs again.
    if (halves && name !== "out") castToF32(commands, { halves, x: activations[name] }, { rows });
  }
  const settings = { rows, eps: config.rmsNormEps };
  rmsNorm(commands, { x, weight: weights.inputNorm, out: inputNormed, rrms: inputRrms }, settings);
  rmsNorm(commands, { x: mid, weight: weights.postAttentionNorm, out: midNormed, rrms: midRrms }, settings);
  swiglu(commands, { gateUp, out: activated }, { rows });
}

/** Records the layer as far as the input of its SwiGLU. */
function gateUpForward(
  commands: Commands,
  { x, weights, activations, keys }: LayerApplication,
  { context, packing }: LayerPlace,
): void {
  const { config } = context;
  const { rows } = packing;
  const { inputNormed, inputRrms, qkv, attended, mid, midNormed, midRrms, gateUp } = activations;
  const { weight: projected } = projection(config, keys);

  const settings = { rows, eps: config.rmsNormEps, keeps: context.backward };
  normLinear(commands, {
    x,
    norm: weights.inputNorm,
    weight: weights[projected],
    out: qkv,
    normed: inputNormed,
    rrms: inputRrms,
  }, settings);
  attend(commands, { activations, keys }, { context, packing });
  linearAdd(commands, { x: attended, weight: weights.output, residual: x, out: mid }, { rows });

  normLinear(commands, {
    x: mid,
    norm: weights.postAttentionNorm,
    weight: weights.gateUp,
    out: gateUp,
    normed: midNormed,
    rrms: midRrms,
  }, settings);
}

/** Records the rotation of the projection, its way into the cache if there is one, and attention to the layer's keys. */
function attend(
  commands: Commands,
  { activations: { qkv, attended, logSumExp }, keys }: Pick<LayerApplication, "activations" | "keys">,
  { context, packing }: LayerPlace,
): void {
  const { config, ropeTable: table } = context;
  const settings = attentionShape(context, keys);
  const tensors = { q: qkv, out: attended, logSumExp };
  if (keys.kind !== "cache" || keys.appends === null) {
    rope(commands, { x: qkv, packing, table }, projection(config, keys).heads);
  }
  if (keys.kind !== "cache") {
    attention(commands, { ...tensors, kv: keys.shared?.qkv ?? qkv, packing }, settings);
    return;
  }
  const { cache, places, appends } = keys;
  if (appends) cacheAppend(commands, { qkv, places: appends, cache, table }, settings);
  // The tiles of `attention` walk the keys between those of a block's first and last row: fine for one text only.
  if (!context.isOneSequence || places.rows.maximum <= MAX_CACHED_ROWS) {
    attentionCached(commands, { q: qkv, cache, packing: places, out: attended }, settings);
  } else {
    attention(commands, { ...tensors, kv: cache.pool, packing: places }, settings);
  }
}

/**
 * Records the layer's backward pass. `gradState` (M, C) holds the gradient of `activations.out` and becomes that of x;
 * the weights' gradients are added to.
 */
export function layerBackward(
  commands: Commands,
  { x, weights, gradients, activations, keys, gradState }: LayerApplication & {
    gradients: LayerViews;
    gradState: Tensor;
  },
  { context, packing }: LayerPlace,
): void {
  const { config, ropeTable, scratch } = context;
  const { rows } = packing;
  const { inputNormed, inputRrms, attended, mid, midNormed, midRrms, gateUp, activated } = activations;
  const { gradNormed } = scratch;
  const { weight: projected, heads } = projection(config, keys);

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
  const gradQkv = attendBackward(commands, { activations, keys }, { context, packing });
  ropeBackward(commands, { x: gradQkv, packing, table: ropeTable }, heads);
  linearBackwardInput(commands, { gradOut: gradQkv, weight: weights[projected], gradX: gradNormed }, {
    rows,
  });
  linearBackwardWeight(commands, { gradOut: gradQkv, x: inputNormed, gradWeight: gradients[projected] }, {
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

/**
 * Records the reverse of `attend` and returns the gradient of what the layer projected. Shared keys collect theirs over
 * all steps: the last step, whose backward comes first, starts it, and the first step adds its own queries'.
 */
function attendBackward(
  commands: Commands,
  { activations: { qkv, attended, logSumExp }, keys }: Pick<LayerApplication, "activations" | "keys">,
  { context, packing }: LayerPlace,
): Tensor {
  if (keys.kind === "cache") throw new TypeError("Cannot record layerBackward: a cache has no gradient");
  const { scratch } = context;
  const own = viewTensor(scratch.gradQkv, { shape: [packing.rows.maximum, qkv.shape[1]!] });
  const gradQ = keys.kind === "own" ? keys.shared?.gradQkv ?? own : own;
  attentionBackward(commands, {
    q: qkv,
    kv: keys.shared?.qkv ?? qkv,
    packing,
    out: attended,
    logSumExp,
    gradOut: scratch.gradAttended,
    gradQ,
    gradKv: keys.shared?.gradQkv ?? own,
    delta: scratch.delta,
  }, {
    ...attentionShape(context, keys),
    accumulate: keys.kind === "own" ? keys.shared !== null : !keys.isLastStep,
  });
  return gradQ;
}
