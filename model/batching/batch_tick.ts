/**
 * A tick of depth-wise batching (paper: arXiv 2507.10524, section 4), which the GPU runs without the host:
 *
 *   1. recur: slots that are ready, at whatever recursion step each of them is, run the shared block once together; the
 *      router sends each on to its next step or out of the recursion.
 *   2. leave: once enough are out, the last layer, the head and the sampler give each its next token; texts that end
 *      give back their pages.
 *   3. enter: tokens just drawn, and those of texts just admitted, run the embedding and the first layer.
 */
import type { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import type { PagedKeys } from "../../gpu/kernels/cache_pages.ts";
import { embedding } from "../../gpu/kernels/embedding.ts";
import { gatherRows } from "../../gpu/kernels/gather_rows.ts";
import { normLinear } from "../../gpu/kernels/linear.ts";
import { releasePages } from "../../gpu/kernels/page_moves.ts";
import { ropeTable } from "../../gpu/kernels/rope.ts";
import { sample } from "../../gpu/kernels/sample.ts";
import { finishTokens } from "../../gpu/kernels/slot_finish.ts";
import { selectSlots } from "../../gpu/kernels/slot_select.ts";
import { enterStates, recurStates, type StateBase } from "../../gpu/kernels/slot_states.ts";
import type { Allocator } from "../../gpu/memory.ts";
import { fixedPacking, type Packing } from "../../gpu/packing.ts";
import { createTensor, type Dtype, type Tensor } from "../../gpu/tensor.ts";
import { layersForward } from "../block.ts";
import type { Gating, ModelConfig } from "../config.ts";
import {
  allocateLayerActivations,
  allocateLayerScratch,
  type LayerActivations,
  type LayerContext,
  type LayerKeys,
} from "../layer_buffers.ts";
import type { ModelWeights } from "../model_weights.ts";
import { paddedVocabSize } from "../parameters.ts";
import { ropeScales } from "../rope_scaling.ts";
import { type BatchParts, partWeights } from "./batch_parts.ts";
import { allocateBatchRouter, type BatchRouter, routeEntered, routeRecurred } from "./batch_router.ts";
import { type BatchState, positionsOf } from "./batch_state.ts";
import type { PageStore } from "./page_store.ts";

/** A model, the texts of a batch, and where their keys and values are. */
export interface Batch {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly parts: BatchParts;
  readonly state: BatchState;
  readonly store: PageStore;
}

/** Buffers for the B rows of a tick; the three parts run one after the other and share most of them. */
export interface TickBuffers {
  readonly layers: LayerContext;
  readonly activations: LayerActivations;
  /** The slots that run. */
  readonly packing: Packing;
  /** Where the rows' own keys and values go, if a model shares them between steps: not of all rows. */
  readonly appends: Packing;
  /** (B) u32: tokens that enter. */
  readonly ids: Tensor;
  /** (B, C): what runs. */
  readonly input: Tensor;
  /** (B, C), (B), (B, Vp). */
  readonly normed: Tensor;
  readonly rrms: Tensor;
  readonly logits: Tensor;
  readonly router: BatchRouter;
}

export function allocateTick(
  device: GpuDevice,
  allocator: Allocator,
  { config, weights, parts, rows, capacity }: {
    config: ModelConfig;
    weights: ModelWeights;
    parts: BatchParts;
    rows: number;
    capacity: number;
  },
): TickBuffers {
  const { hiddenSize, headDim, ropeTheta: theta } = config;
  const tensor = (label: string, shape: readonly number[], dtype: Dtype = "f32"): Tensor =>
    createTensor(allocator, { shape, dtype, label });
  const packing = fixedPacking(allocator, { count: rows });
  const source = { config, rows };
  return {
    layers: {
      config,
      longest: capacity,
      backward: false,
      recompute: false,
      activationDtype: "f32",
      isOneSequence: false,
      ropeTable: ropeTable(allocator, { positions: capacity, headDim, theta, ...ropeScales(config) }),
      scratch: allocateLayerScratch(allocator, { ...source, backward: false }),
    },
    activations: allocateLayerActivations(allocator, { ...source, makesKeys: true }),
    packing,
    appends: { rows: packing.rows, records: tensor("rows that make keys", [rows, 4], "u32") },
    ids: tensor("ids", [rows], "u32"),
    input: tensor("rows", [rows, hiddenSize]),
    normed: tensor("normed", [rows, hiddenSize]),
    rrms: tensor("rrms", [rows]),
    logits: tensor("logits", [rows, paddedVocabSize(config)]),
    router: allocateBatchRouter(device, allocator, { config, weights, packing, steps: parts.steps }),
  };
}

/** Records the layers of a part on rows x; the result is its last layer's output. */
function partForward(
  commands: Commands,
  { x, part, caches, appends }: {
    x: Tensor;
    part: readonly number[];
    caches: readonly PagedKeys[];
    appends: Packing;
  },
  { batch: { weights }, buffers: { layers, activations, packing } }: { batch: Batch; buffers: TickBuffers },
): Tensor {
  const keys = caches.map((cache): LayerKeys => ({ kind: "cache", cache, places: packing, appends }));
  const run = { weights: partWeights(weights, part), activations: part.map(() => activations), keys };
  return layersForward(commands, { x, run }, { context: layers, packing });
}

/** Records one recursion step for the slots that are ready. */
export function recordRecur(commands: Commands, batch: Batch, buffers: TickBuffers): void {
  const { config, weights, parts, state, store: { pages, block } } = batch;
  const { packing, appends, input, router } = buffers;
  const { slots, states, starts, gates, tallies } = state;
  selectSlots(commands, { slots, pages, tallies, packing, more: appends.records }, { phase: "recurring" });
  gatherRows(commands, { x: states, packing, out: input });
  const rows = { x: input, part: parts.block, caches: block, appends: pages.isShared ? appends : packing };
  const z = partForward(commands, rows, { batch, buffers });
  recurStates(commands, { z, packing, slots, gates, states, starts }, joining(config));
  routeRecurred(commands, { config, weights, router, state, packing });
}

/** What a step's output joins. */
function joining({ router }: ModelConfig): { base: StateBase; gating: Gating } {
  if (!router) return { base: "none", gating: "replace" };
  return { base: router.kind === "token_choice" ? "start" : "state", gating: router.gating };
}

/** Records the way out for the slots that are through with the recursion, see `selectSlots` for when. */
export function recordLeave(
  commands: Commands,
  batch: Batch,
  buffers: TickBuffers,
  when: { readonly due: number; readonly full: number },
): void {
  const { config, weights, parts, state, store: { pages, ends } } = batch;
  const { packing, input, normed, rrms, logits, ids } = buffers;
  const { slots, states, tallies, sampling, seen, tokens, logProbabilities, log } = state;
  const { rows, records } = packing;
  selectSlots(commands, { slots, pages, tallies, packing, more: ids }, { phase: "leaving", ...when });
  gatherRows(commands, { x: states, packing, out: input });
  const caches = ends.slice(parts.entry.length);
  const x = partForward(commands, { x: input, part: parts.exit, caches, appends: packing }, {
    batch,
    buffers,
  });
  normLinear(commands, { x, norm: weights.norm, weight: weights.head, out: logits, normed, rrms }, {
    rows,
    eps: config.rmsNormEps,
    keeps: false,
  });
  const positions = positionsOf(state);
  sample(commands, { logits, slots: records, sampling, positions, seen, tokens, logProbabilities }, {
    rows,
    vocabSize: config.vocabSize,
    slotStride: 4,
  });
  finishTokens(commands, { slots, packing, tokens, logProbabilities, ends: state.ends, log, tallies });
  releasePages(commands, { slots, pages, packing });
}

/** Records the way into the recursion for the slots that have a token to run. */
export function recordEnter(commands: Commands, batch: Batch, buffers: TickBuffers): void {
  const { config, weights, parts, state, store: { pages, ends } } = batch;
  const { packing, input, router, ids } = buffers;
  const { slots, states, starts, tallies } = state;
  selectSlots(commands, { slots, pages, tallies, packing, more: ids }, { phase: "entering" });
  embedding(commands, { ids, weight: weights.embedding, out: input }, { rows: packing.rows });
  const caches = ends.slice(0, parts.entry.length);
  const z = partForward(commands, { x: input, part: parts.entry, caches, appends: packing }, {
    batch,
    buffers,
  });
  enterStates(commands, { z, packing, states, starts });
  routeEntered(commands, { config, weights, router, state, packing });
}
