/**
 * Every buffer of a forward (and backward) pass, as a table: made once for a batch shape, before anything is recorded,
 * so that the memory of a run is known before it is taken.
 */
import type { PagedKeys } from "../gpu/kernels/cache_pages.ts";
import { ropeTable } from "../gpu/kernels/rope.ts";
import type { Allocator } from "../gpu/memory.ts";
import { fixedPacking, fullPacking, type Packing } from "../gpu/packing.ts";
import { createTensor, type Dtype, type Tensor } from "../gpu/tensor.ts";
import { type ActivationSettings, activationSource } from "./activation_source.ts";
import type { LayerBuffers } from "./block.ts";
import { ConfigError, type ModelConfig } from "./config.ts";
import { allocateChunkedLogits, allocateLogits, type HeadLogits } from "./head_chunks.ts";
import { allocateCachePass, type CachePass, type KvCache } from "./kv_cache.ts";
import {
  type ActivationDtype,
  allocateLayerScratch,
  type LayerContext,
  type LayerKeys,
  type SharedKeys,
} from "./layer_buffers.ts";
import type { ModelWeights } from "./model_weights.ts";
import { layerPlan } from "./parameters.ts";
import type { Decisions } from "./recursion.ts";
import { ropeScales } from "./rope_scaling.ts";
import { allocateExpertSelections, type Routing, type SelectionShape } from "./selection.ts";
import { allocateDepthDecision } from "./token_choice.ts";

/** The batch and the purpose that a workspace is made for. */
export interface WorkspaceShape {
  /** Tokens of each sequence; of a cached pass, rows that follow what the cache holds. */
  readonly lengths: readonly number[];
  readonly routing: Routing;
  /** Keep what the backward pass needs; otherwise one set of activations serves all layers. */
  readonly backward: boolean;
  /** For backward keep only the outputs of layers, and run each again for its gradients; not unless told. */
  readonly recompute?: boolean;
  /** For backward store what layers keep as f32 or f16; all arithmetic is f32. f32 unless told. */
  readonly activationDtype?: ActivationDtype;
  /** What the head makes: logits of all rows, of one chosen row, or losses, which need logits of some rows at a time. */
  readonly head: "all" | "one" | "losses";
  /** Of a head for losses, most rows that have logits at once: see `allocateChunkedLogits`, which chooses unless told. */
  readonly logitRows?: number | undefined;
  /** Whether capacities change from pass to pass (capacity warm-up); not unless told. */
  readonly movingCapacity?: boolean;
  /** Keys and values of earlier tokens, to go on from; a pass over whole sequences has none. */
  readonly cache?: KvCache | null;
}

/** Buffers of one recursion step. */
export interface StepBuffers extends LayerBuffers {
  readonly packing: Packing;
  readonly gathered: Tensor | null;
  readonly stateAfter: Tensor | null;
}

/** Buffers of a pass; M = B * T rows, C hidden size, Vp padded vocabulary. */
export interface Workspace extends HeadLogits {
  readonly shape: SelectionShape;
  readonly layers: LayerContext;
  readonly full: Packing;
  /** (M) u32. */
  readonly ids: Tensor;
  readonly targets: Tensor;
  /** (M) u32: rows of the batch sorted by token, and each token's first place, for the embedding's gradient. */
  readonly tokenOrder: Tensor;
  readonly tokenStarts: Tensor;
  /** (M, C) */
  readonly embedded: Tensor;
  readonly first: LayerBuffers;
  readonly steps: readonly StepBuffers[];
  readonly decisions: Decisions;
  readonly last: LayerBuffers;
  readonly cache: CachePass | null;
  /** The rows that get logits, and their states (head rows, C) when they are not all. */
  readonly headPacking: Packing;
  readonly headState: Tensor | null;
  /** (head rows, C), (head rows), (head rows). */
  readonly normed: Tensor;
  readonly rrms: Tensor;
  readonly tokenLosses: Tensor;
  /** (LOSS_SLOTS) sums of the loss terms. */
  readonly losses: Tensor;
  /** (R): candidates of each step whose logit agrees with top-k, summed like the losses. */
  readonly agreements: Tensor;
  /** (1) u32: seed of the random router. */
  readonly seed: Tensor;
  /** (M, C): gradients of the state, of packed rows inside the recursion, of the normed final state. */
  readonly gradState: Tensor;
  readonly gradPacked: Tensor;
}

/** A model's weights together with the buffers of a pass. */
export interface Pass {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly workspace: Workspace;
}

/** Places in `losses`. */
export const LOSS_SLOTS = { ce: 0, auxiliary: 1, balancing: 2, z: 3 } as const;

/**
 * @throws ConfigError for a sequence longer than the model's positions; MemoryError when it does not fit.
 */
export function allocateWorkspace(
  device: Allocator,
  { config, shape: wanted }: { config: ModelConfig; shape: WorkspaceShape },
): Workspace {
  const { cache = null, head, logitRows, recompute = false, activationDtype = "f32", ...rest } = wanted;
  const shape: SelectionShape = { movingCapacity: false, ...rest };
  const { lengths, backward } = shape;
  const longest = cache?.capacity ?? lengths.reduce((most, length) => Math.max(most, length), 0);
  if (longest > config.maxPositionEmbeddings) {
    throw new ConfigError(
      `Cannot run ${longest} tokens: the model has ${config.maxPositionEmbeddings} positions ` +
        "(max_position_embeddings); lower --sequence-length or give a shorter prompt",
    );
  }
  const rows = lengths.reduce((sum, length) => sum + length, 0);
  const headRows = head === "one" ? 1 : rows;
  const { hiddenSize, headDim, ropeTheta: theta } = config;
  function tensor(label: string, size: readonly number[], dtype: Dtype = "f32"): Tensor {
    return createTensor(device, { shape: size, dtype, label });
  }
  const full = fullPacking(device, lengths);
  const gradRows = backward ? rows : 0;
  const decisions = allocateDecisions(device, { config, full, shape });
  const packings = stepPackings(config, { decisions, full });
  const cachePass = cache &&
    allocateCachePass(device, { cache, full, steps: config.router ? packings : [] });
  const headPacking = head === "one" ? fixedPacking(device, { count: 1 }) : full;
  return {
    shape,
    layers: {
      config,
      longest,
      backward,
      recompute,
      activationDtype,
      isOneSequence: lengths.length === 1,
      ropeTable: ropeTable(device, { positions: longest, headDim, theta, ...ropeScales(config) }),
      scratch: allocateLayerScratch(device, { config, rows, backward }),
    },
    full,
    ids: tensor("ids", [rows], "u32"),
    targets: tensor("targets", [rows], "u32"),
    tokenOrder: tensor("token order", [gradRows], "u32"),
    tokenStarts: tensor("token starts", [gradRows], "u32"),
    embedded: tensor("embedded", [rows, hiddenSize]),
    ...allocateLayers(
      device,
      { full, packings, cache: cachePass },
      { config, backward, recompute, activationDtype },
    ),
    decisions,
    cache: cachePass,
    headPacking,
    headState: head === "one" ? tensor("head state", [1, hiddenSize]) : null,
    normed: tensor("normed", [headRows, hiddenSize]),
    rrms: tensor("rrms", [headRows]),
    ...(head === "losses"
      ? allocateChunkedLogits(device, { config, rows: headPacking.rows, logitRows })
      : allocateLogits(device, { config, rows: headPacking.rows })),
    tokenLosses: tensor("token losses", [headRows]),
    losses: tensor("losses", [Object.keys(LOSS_SLOTS).length]),
    agreements: tensor("agreements", [config.recursion?.numRecursions ?? 0]),
    seed: tensor("routing seed", [1], "u32"),
    gradState: tensor("state gradient", [gradRows, hiddenSize]),
    gradPacked: tensor("packed gradient", [gradRows, hiddenSize]),
  };
}

function allocateDecisions(
  device: Allocator,
  { config, full, shape }: { config: ModelConfig; full: Packing; shape: SelectionShape },
): Decisions {
  const { router, hiddenSize } = config;
  if (!router) return { kind: "none" };
  if (router.kind === "expert_choice") {
    return { kind: router.kind, selections: allocateExpertSelections(device, { config, full, shape }) };
  }
  const { backward } = shape;
  const state = (label: string, isNeeded: boolean): Tensor =>
    createTensor(device, { shape: [isNeeded ? full.rows.maximum : 0, hiddenSize], label });
  return {
    kind: router.kind,
    decision: allocateDepthDecision(device, { config, full, backward }),
    exit: state("state after the recursion", true),
    gradDeep: state("gradient inside the recursion", backward),
  };
}

/** The tokens of each recursion step. */
function stepPackings(
  { recursion }: ModelConfig,
  { decisions, full }: { decisions: Decisions; full: Packing },
): Packing[] {
  if (decisions.kind === "none") return Array.from({ length: recursion?.numRecursions ?? 0 }, () => full);
  const { selections } = decisions.kind === "expert_choice" ? decisions : decisions.decision;
  return selections.map(({ packing }) => packing);
}

/** Activations, states and keys of all layers. */
function allocateLayers(
  device: Allocator,
  { full, packings, cache }: { full: Packing; packings: readonly Packing[]; cache: CachePass | null },
  settings: ActivationSettings,
): { first: LayerBuffers; steps: StepBuffers[]; last: LayerBuffers } {
  const { config, backward } = settings;
  const plan = layerPlan(config);
  const { maximum: rows } = full.rows;
  const isShared = config.kvCache === "shared" && packings.length > 1;
  const state = (label: string, count: number): Tensor =>
    createTensor(device, { shape: [count, config.hiddenSize], label });
  const endActivations = activationSource(device, settings);
  // The state that enters the recursion lives through it: without backward, where one set has no other output, the
  // block has a set of its own.
  const blockActivations = backward ? endActivations : activationSource(device, settings);
  const own: LayerKeys = { kind: "own", shared: null };
  function ends(
    layers: readonly number[],
    { caches, output }: { caches: readonly PagedKeys[] | undefined; output: "state" | "head" },
  ): LayerBuffers {
    return {
      activations: layers.map((_, i) =>
        endActivations({ rows, projection: "all", output: i < layers.length - 1 ? "next layer" : output })
      ),
      keys: layers.map((_, i) =>
        cache ? { kind: "cache", cache: caches![i]!, places: cache.full, appends: cache.full } : own
      ),
    };
  }
  const first = ends(plan.first, {
    caches: cache?.cache.first,
    output: plan.steps.length > 0 ? "state" : "head",
  });
  const passingStates = backward || !config.router ? [] : [0, 1].map(() => state("state", rows));
  let shared: SharedKeys[] = [];
  const steps = plan.steps.map((layers, r): StepBuffers => {
    const packing = packings[r]!;
    const { maximum } = packing.rows;
    const isStart = r === 0;
    const isLastStep = r === plan.steps.length - 1;
    const output = isLastStep && plan.last.length === 0 && !config.router ? "head" : "state";
    const activations = layers.map((_, j) =>
      blockActivations({
        rows: maximum,
        projection: !isShared ? "all" : !isStart ? "queries" : cache ? "all" : "shared keys",
        output: j < layers.length - 1 ? "next layer" : output,
      })
    );
    if (isShared && isStart) {
      const gradShape = backward ? activations[0]!.qkv.shape : [0, activations[0]!.qkv.shape[1]!];
      shared = activations.map(({ qkv }) => ({
        qkv,
        gradQkv: createTensor(device, { shape: gradShape, label: "shared qkv gradient" }),
      }));
    }
    return {
      packing,
      activations,
      keys: layers.map((_, j): LayerKeys => {
        if (cache) {
          const places = cache.steps[r] ?? cache.full;
          return {
            kind: "cache",
            cache: cache.cache.steps[r]![j]!,
            places,
            appends: isShared && !isStart ? null : places,
          };
        }
        if (!isShared) return own;
        return isStart
          ? { kind: "own", shared: shared[j]! }
          : { kind: "shared", shared: shared[j]!, isLastStep };
      }),
      gathered: packing === full ? null : state("gathered", maximum),
      stateAfter: !config.router ? null : backward ? state("state", rows) : passingStates[r % 2]!,
    };
  });
  return { first, steps, last: ends(plan.last, { caches: cache?.cache.last, output: "head" }) };
}
