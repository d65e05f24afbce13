/**
 * Every buffer of a forward (and backward) pass, as a table: made once for a batch shape, before anything is recorded,
 * so that the memory of a run is known before it is taken.
 */
import { ropeTable } from "../gpu/kernels/rope.ts";
import type { Allocator } from "../gpu/memory.ts";
import { fixedPacking, fullPacking, type Packing } from "../gpu/packing.ts";
import { type Rows, staticRows } from "../gpu/rows.ts";
import { createTensor, type Dtype, type Tensor } from "../gpu/tensor.ts";
import { ConfigError, type ModelConfig } from "./config.ts";
import { allocateSelections, type Routing } from "./expert_choice.ts";
import {
  allocateLayerActivations,
  allocateLayerScratch,
  type LayerActivations,
  type LayerContext,
} from "./layer.ts";
import { layerRoles, paddedVocabSize } from "./parameters.ts";

/** The batch and the purpose that a workspace is made for. */
export interface WorkspaceShape {
  /** B. */
  readonly sequences: number;
  /** T, at most: see `setLength` in generate.ts. */
  readonly tokens: number;
  readonly routing: Routing;
  /** Keep what the backward pass needs; otherwise one set of activations serves all layers. */
  readonly backward: boolean;
  /** Rows that get logits: all of them, or one chosen row. */
  readonly head: "all" | "one";
}

/** Activations of the recursion, for each way that a step can go. */
export interface StepBuffers {
  /** Activations of the block's layers. */
  readonly layers: readonly LayerActivations[];
  /** Mixture-of-Recursions only. */
  readonly gathered: Tensor | null;
  readonly stateAfter: Tensor | null;
}

/** Buffers of a pass; M = B * T rows, C hidden size, Vp padded vocabulary. */
export interface Workspace {
  readonly shape: WorkspaceShape;
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
  readonly first: readonly LayerActivations[];
  readonly steps: readonly StepBuffers[];
  readonly selections: ReturnType<typeof allocateSelections>;
  readonly last: readonly LayerActivations[];
  /** The rows that get logits, and their states (head rows, C) when they are not all. */
  readonly headPacking: Packing;
  readonly headState: Tensor | null;
  /** (head rows, C), (head rows), (head rows, Vp), (head rows). */
  readonly normed: Tensor;
  readonly rrms: Tensor;
  readonly logits: Tensor;
  readonly tokenLosses: Tensor;
  /** (LOSS_SLOTS) sums of the loss terms. */
  readonly losses: Tensor;
  /** One row, for kernels that sum scalars. */
  readonly oneRow: Rows;
  /** (1) u32: seed of the random router. */
  readonly seed: Tensor;
  /** (M, C): gradients of the state, of packed rows inside the recursion, of the normed final state. */
  readonly gradState: Tensor;
  readonly gradPacked: Tensor;
}

/** Places in `losses`. */
export const LOSS_SLOTS = { ce: 0, auxiliary: 1, z: 2 } as const;

/** @throws ConfigError for a configuration whose semantics this version does not have. */
export function checkSupported({ recursion, router, kvCache }: ModelConfig): void {
  function refuse(what: string): never {
    throw new ConfigError(`Cannot run this model: ${what} is not part of this version`);
  }
  if (recursion && !/cycle$/.test(recursion.sharing)) refuse(`recursion.sharing ${recursion.sharing}`);
  if (router?.kind === "token_choice") refuse("router.kind token_choice");
  if (router?.architecture === "mlp") refuse("router.architecture mlp");
  if (router?.kind === "expert_choice" && router.auxiliary === "router") refuse("router.auxiliary router");
  if (recursion && kvCache === "shared") refuse("kv_cache shared");
}

/**
 * @throws ConfigError for a sequence longer than the model's positions, or an unsupported configuration; MemoryError
 * when it does not fit.
 */
export function allocateWorkspace(
  device: Allocator,
  { config, shape }: { config: ModelConfig; shape: WorkspaceShape },
): Workspace {
  checkSupported(config);
  const { sequences, tokens, backward } = shape;
  if (tokens > config.maxPositionEmbeddings) {
    throw new ConfigError(
      `Cannot run ${tokens} tokens: the model has ${config.maxPositionEmbeddings} positions ` +
        "(max_position_embeddings); lower --sequence-length or give a shorter prompt",
    );
  }
  const rows = sequences * tokens;
  const headRows = shape.head === "one" ? 1 : rows;
  const { hiddenSize } = config;
  const padded = paddedVocabSize(config);
  function tensor(label: string, size: readonly number[], dtype: Dtype = "f32"): Tensor {
    return createTensor(device, { shape: size, dtype, label });
  }
  const full = fullPacking(device, { sequences, tokens });
  const gradRows = backward ? rows : 0;
  // The state that enters the recursion lives through it, so the block has activations of its own.
  const endActivations = activationSource(device, { config, backward });
  const blockActivations = activationSource(device, { config, backward });
  const roles = layerRoles(config);
  const isRouted = config.router !== null;
  const selections = config.router?.kind === "expert_choice"
    ? allocateSelections(device, { router: config.router, recursion: config.recursion!, full, shape })
    : [];
  const states = backward ? [] : [0, 1].map(() => isRouted ? tensor("state", [rows, hiddenSize]) : null);
  const first = roles.first.map(() => endActivations(rows));
  const steps = Array.from({ length: config.recursion?.numRecursions ?? 0 }, (_, r): StepBuffers => {
    const stepRows = selections[r]?.packing.rows.maximum ?? rows;
    return {
      layers: roles.block.map(() => blockActivations(stepRows)),
      gathered: isRouted ? tensor("gathered", [stepRows, hiddenSize]) : null,
      stateAfter: !isRouted ? null : backward ? tensor("state", [rows, hiddenSize]) : states[r % 2]!,
    };
  });
  return {
    shape,
    layers: {
      config,
      longest: tokens,
      ropeTable: ropeTable(device, { positions: tokens, headDim: config.headDim, theta: config.ropeTheta }),
      scratch: allocateLayerScratch(device, { config, rows, backward }),
    },
    full,
    ids: tensor("ids", [rows], "u32"),
    targets: tensor("targets", [rows], "u32"),
    tokenOrder: tensor("token order", [gradRows], "u32"),
    tokenStarts: tensor("token starts", [gradRows], "u32"),
    embedded: tensor("embedded", [rows, hiddenSize]),
    first,
    steps,
    selections,
    last: roles.last.map(() => endActivations(rows)),
    headPacking: shape.head === "one" ? fixedPacking(device, { sequences: 1, kept: 1 }) : full,
    headState: shape.head === "one" ? tensor("head state", [1, hiddenSize]) : null,
    normed: tensor("normed", [headRows, hiddenSize]),
    rrms: tensor("rrms", [headRows]),
    logits: tensor("logits", [headRows, padded]),
    tokenLosses: tensor("token losses", [headRows]),
    losses: tensor("losses", [Object.keys(LOSS_SLOTS).length]),
    oneRow: staticRows(device, 1),
    seed: tensor("routing seed", [1], "u32"),
    gradState: tensor("state gradient", [gradRows, hiddenSize]),
    gradPacked: tensor("packed gradient", [gradRows, hiddenSize]),
  };
}

/**
 * Activations for the next layer: new ones each time for backward. Otherwise one set serves all layers: a layer has
 * read its input for the last time when it writes its output.
 */
function activationSource(
  device: Allocator,
  { config, backward }: { config: ModelConfig; backward: boolean },
): (rows: number) => LayerActivations {
  let shared: LayerActivations | null = null;
  return (rows) => {
    if (backward) return allocateLayerActivations(device, { config, rows });
    // The first layer asks for the most rows, so later ones fit.
    shared ??= allocateLayerActivations(device, { config, rows });
    return shared;
  };
}
