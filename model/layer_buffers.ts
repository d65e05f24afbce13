/** What a layer works with: activations that its backward pass needs, scratch, and where its keys come from. */
import type { PagedKeys } from "../gpu/kernels/cache_pages.ts";
import type { Allocator } from "../gpu/memory.ts";
import type { Packing } from "../gpu/packing.ts";
import { createTensor, type Tensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";

/** How activations are stored for the backward pass. */
export const ACTIVATION_DTYPES = ["f32", "f16"] as const;
export type ActivationDtype = typeof ACTIVATION_DTYPES[number];

/** What can be stored in f16; the rest of a layer's activations is small, or cheap to make again from these. */
export const STORED_NAMES = ["qkv", "attended", "mid", "gateUp", "out"] as const;

/** Copies in f16, (M, columns / 2) u32 each as `castToF16` makes them: what is stored of a layer that shares buffers. */
export type StoredActivations = { readonly [name in typeof STORED_NAMES[number]]?: Tensor };

/** What one application of a layer makes: its output, and what its backward pass needs. M rows at most. */
export interface LayerActivations {
  /** (M, C) */
  readonly inputNormed: Tensor;
  /** (M) */
  readonly inputRrms: Tensor;
  /** (M, (H + 2 G) D): queries, keys and values, rotated; (M, H D) where the layer makes no keys. */
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
  /** Nothing where activations are f32. */
  readonly stored: StoredActivations;
}

/** Scratch of the layers: nothing in it outlives a layer. */
export interface LayerScratch {
  /** (M, C) */
  readonly gradNormed: Tensor;
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

/** Where a layer's queries find their keys and values. */
export type LayerKeys =
  /** In its own projection. With `shared`, later recursion steps read them too and add to their gradient. */
  | { readonly kind: "own"; readonly shared: SharedKeys | null }
  /** In its projection at the first recursion step (recursive KV sharing, section 2.3 of the paper). */
  | { readonly kind: "shared"; readonly shared: SharedKeys; readonly isLastStep: boolean }
  /** In a cache: `places` says which entries each packed row sees, `appends` where its own go, if it makes any. */
  | {
    readonly kind: "cache";
    readonly cache: PagedKeys;
    readonly places: Packing;
    readonly appends: Packing | null;
  };

/** Keys and values of the first recursion step, a row for each row of the state. */
export interface SharedKeys {
  /** (B * T, (H + 2 G) D) */
  readonly qkv: Tensor;
  /** Like qkv; empty for a model that only runs forward. */
  readonly gradQkv: Tensor;
}

/** What every layer of a model shares. */
export interface LayerContext {
  readonly config: ModelConfig;
  /** Most keys that a row sees. */
  readonly longest: number;
  /** Whether a backward pass follows, which needs all activations. */
  readonly backward: boolean;
  /** Whether it makes them again, layer by layer, because all layers share one set, but for their outputs. */
  readonly recompute: boolean;
  /** How they are stored until then. */
  readonly activationDtype: ActivationDtype;
  /** Whether all rows are of one sequence. */
  readonly isOneSequence: boolean;
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

export function allocateLayerActivations(
  device: Allocator,
  { config, rows, makesKeys }: { config: ModelConfig; rows: number; makesKeys: boolean },
): LayerActivations {
  const { hidden, qkv, attended, intermediate } = widths(config);
  const tensor = (label: string, ...shape: number[]): Tensor =>
    createTensor(device, { shape: [rows, ...shape], label });
  return {
    inputNormed: tensor("input normed", hidden),
    inputRrms: tensor("input rrms"),
    qkv: tensor("qkv", makesKeys ? qkv : attended),
    attended: tensor("attended", attended),
    logSumExp: tensor("log-sum-exp", config.numAttentionHeads),
    mid: tensor("mid", hidden),
    midNormed: tensor("mid normed", hidden),
    midRrms: tensor("mid rrms"),
    gateUp: tensor("gate and up", 2 * intermediate),
    activated: tensor("activated", intermediate),
    out: tensor("layer output", hidden),
    stored: {},
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
    gradNormed: tensor("normed gradient", gradRows, hidden),
    gradQkv: tensor("qkv gradient", gradRows, qkv),
    gradAttended: tensor("attended gradient", gradRows, attended),
    delta: tensor("attention delta", gradRows, config.numAttentionHeads),
    gradGateUp: tensor("gate and up gradient", gradRows, 2 * intermediate),
    gradActivated: tensor("activated gradient", gradRows, intermediate),
  };
}
