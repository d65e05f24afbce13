/**
 * The table of every weight: name, shape, place. It is the model's architecture in one view, and the only place that
 * knows where a weight lives.
 *
 * Weights, gradients and both AdamW moments are four flat arrays of the same layout: matrices first (weight decay),
 * norms after them (none). Projections that read the same input stand side by side, so that one matrix product serves
 * q, k and v, and one gate and up.
 */
import type { Allocator } from "../gpu/memory.ts";
import {
  BINDING_ALIGNMENT,
  createTensor,
  ELEMENT_BYTES,
  elementCount,
  type Tensor,
  viewTensor,
} from "../gpu/tensor.ts";
import { hasUnsharedEnds, type ModelConfig, numUniqueLayers } from "./config.ts";

/** One weight as a checkpoint stores it. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** Matrices start as N(0, initializer_range), norms as ones. */
  readonly kind: "matrix" | "norm";
}

/** Where a parameter stands in a flat array; `rows` counts the padding rows of the vocabulary too. */
export interface ParameterPlace {
  readonly spec: ParameterSpec;
  readonly start: number;
}

/** The weights of one layer as its operations read them. */
export interface LayerViews {
  /** (C). */
  readonly inputNorm: Tensor;
  /** ((H + 2 G) D, C): q, k and v projections. */
  readonly qkv: Tensor;
  /** (C, H D). */
  readonly output: Tensor;
  /** (C). */
  readonly postAttentionNorm: Tensor;
  /** (2 F, C): gate and up projections. */
  readonly gateUp: Tensor;
  /** (C, F). */
  readonly down: Tensor;
}

/** One flat array seen as the model's weights (or their gradients, or their moments). */
export interface ParameterViews {
  readonly flat: Tensor;
  /** (Vp, C), Vp the padded vocabulary. */
  readonly embedding: Tensor;
  readonly layers: readonly LayerViews[];
  /** (C). */
  readonly norm: Tensor;
  /** (Vp, C); the embedding itself when tied. */
  readonly head: Tensor;
  /** (1, C) for each recursion step; empty without expert choice. */
  readonly routers: readonly Tensor[];
}

/** Vocabulary rows are padded to a multiple of this, so that logits can be read four at a time. */
const VOCABULARY_ALIGNMENT = 16;

/** Vocabulary size with padding: the logits' row length. Padding rows are zero and stay zero. */
export function paddedVocabSize({ vocabSize }: ModelConfig): number {
  return Math.ceil(vocabSize / VOCABULARY_ALIGNMENT) * VOCABULARY_ALIGNMENT;
}

/** Every weight of a checkpoint, in the order of the forward pass. */
export function parameterTable(config: ModelConfig): ParameterSpec[] {
  const { hiddenSize: c, intermediateSize: f, numAttentionHeads: h, numKeyValueHeads: g, headDim: d } =
    config;
  const table: ParameterSpec[] = [];
  function matrix(name: string, rows: number, columns: number): void {
    table.push({ name: `${name}.weight`, shape: [rows, columns], kind: "matrix" });
  }
  function norm(name: string): void {
    table.push({ name: `${name}.weight`, shape: [c], kind: "norm" });
  }
  matrix("model.embed_tokens", config.vocabSize, c);
  for (let u = 0; u < numUniqueLayers(config); u++) {
    const layer = `model.layers.${u}`;
    norm(`${layer}.input_layernorm`);
    matrix(`${layer}.self_attn.q_proj`, h * d, c);
    matrix(`${layer}.self_attn.k_proj`, g * d, c);
    matrix(`${layer}.self_attn.v_proj`, g * d, c);
    matrix(`${layer}.self_attn.o_proj`, c, h * d);
    norm(`${layer}.post_attention_layernorm`);
    matrix(`${layer}.mlp.gate_proj`, f, c);
    matrix(`${layer}.mlp.up_proj`, f, c);
    matrix(`${layer}.mlp.down_proj`, c, f);
  }
  norm("model.norm");
  if (!config.tieWordEmbeddings) matrix("lm_head", config.vocabSize, c);
  for (let r = 0; r < numRouters(config); r++) matrix(`model.routers.${r}`, 1, c);
  return table;
}

/** Routers of expert choice: one for each recursion step, never shared. */
function numRouters({ recursion, router }: ModelConfig): number {
  return router?.kind === "expert_choice" ? recursion!.numRecursions : 0;
}

/** Number of weights, each counted once. */
export function parameterCount(config: ModelConfig): number {
  return parameterTable(config).reduce((sum, { shape }) => sum + elementCount(shape), 0);
}

/** Number of weights that an unrolled model of the same depth would have: no sharing, no routers. */
export function unrolledParameterCount(config: ModelConfig): number {
  return parameterCount({ ...config, recursion: null, router: null });
}

/** Which unique layers run before, inside and after the recursion. Vanilla: all before. */
export function layerRoles(config: ModelConfig): { first: number[]; block: number[]; last: number[] } {
  const unique = Array.from({ length: numUniqueLayers(config) }, (_, u) => u);
  if (!config.recursion) return { first: unique, block: [], last: [] };
  const ends = hasUnsharedEnds(config.recursion) ? 1 : 0;
  return {
    first: unique.slice(0, ends),
    block: unique.slice(ends, unique.length - ends),
    last: unique.slice(unique.length - ends),
  };
}

/** Places in a flat array of `size` elements: matrices in [0, decayed), norms in [decayed, size). */
export class ParameterLayout {
  readonly config: ModelConfig;
  readonly places: ReadonlyMap<string, ParameterPlace>;
  readonly decayed: number;
  readonly size: number;

  constructor(config: ModelConfig) {
    this.config = config;
    const places = new Map<string, ParameterPlace>();
    const table = parameterTable(config);
    let end = 0;
    function place(spec: ParameterSpec): void {
      // Side by side with the projection before it, or at a place that can be bound.
      const start = isFusedWithPrevious(spec.name) ? end : alignElements(end);
      places.set(spec.name, { spec, start });
      const isVocabulary = spec.shape[0] === config.vocabSize && /embed_tokens|lm_head/.test(spec.name);
      const rows = isVocabulary ? paddedVocabSize(config) : spec.shape[0]!;
      end = start + rows * (spec.shape[1] ?? 1);
    }
    table.filter(({ kind }) => kind === "matrix").forEach(place);
    this.decayed = end = alignElements(end);
    table.filter(({ kind }) => kind === "norm").forEach(place);
    this.places = places;
    this.size = alignElements(end);
  }

  /** A zeroed flat array with this layout. */
  allocate(device: Allocator, label: string): ParameterViews {
    return this.#views(createTensor(device, { shape: [this.size], label }));
  }

  #views(flat: Tensor): ParameterViews {
    const { config } = this;
    const { hiddenSize: c, intermediateSize: f, numAttentionHeads: h, numKeyValueHeads: g, headDim: d } =
      config;
    const view = (name: string, shape: readonly number[]): Tensor =>
      viewTensor(flat, {
        start: this.places.get(`${name}.weight`)!.start,
        shape,
        label: `${flat.label} ${name}`,
      });
    const embedding = view("model.embed_tokens", [paddedVocabSize(config), c]);
    return {
      flat,
      embedding,
      layers: Array.from({ length: numUniqueLayers(config) }, (_, u) => ({
        inputNorm: view(`model.layers.${u}.input_layernorm`, [c]),
        qkv: view(`model.layers.${u}.self_attn.q_proj`, [(h + 2 * g) * d, c]),
        output: view(`model.layers.${u}.self_attn.o_proj`, [c, h * d]),
        postAttentionNorm: view(`model.layers.${u}.post_attention_layernorm`, [c]),
        gateUp: view(`model.layers.${u}.mlp.gate_proj`, [2 * f, c]),
        down: view(`model.layers.${u}.mlp.down_proj`, [c, f]),
      })),
      norm: view("model.norm", [c]),
      head: config.tieWordEmbeddings ? embedding : view("lm_head", [paddedVocabSize(config), c]),
      routers: Array.from({ length: numRouters(config) }, (_, r) => view(`model.routers.${r}`, [1, c])),
    };
  }
}

function isFusedWithPrevious(name: string): boolean {
  return /\.(k_proj|v_proj|up_proj)\.weight$/.test(name);
}

function alignElements(count: number): number {
  const elements = BINDING_ALIGNMENT / ELEMENT_BYTES;
  return Math.ceil(count / elements) * elements;
}
