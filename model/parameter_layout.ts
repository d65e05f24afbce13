/**
 * Where every weight lives. Weights, gradients and both AdamW moments are four flat arrays of the same layout: matrices
 * first (weight decay), norms after them (none). Projections that read the same input stand side by side, so that one
 * matrix product serves q, k and v, and one gate and up.
 */
import type { Allocator } from "../gpu/memory.ts";
import { BINDING_ALIGNMENT, createTensor, ELEMENT_BYTES, type Tensor, viewTensor } from "../gpu/tensor.ts";
import { type ModelConfig, numUniqueLayers } from "./config.ts";
import {
  paddedVocabSize,
  type ParameterSpec,
  parameterTable,
  ROUTER_BIAS,
  type RouterSpec,
  routerTable,
} from "./parameters.ts";

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
  /** (H D, C): the first rows of `qkv`. */
  readonly q: Tensor;
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
  /** For each recursion step with expert choice, one with token choice. */
  readonly routers: readonly RouterViews[];
  /** For each recursion step, where auxiliary routers learn what top-k decides. */
  readonly auxiliaryRouters: readonly RouterViews[];
  /** (R): only with loss-free balancing. */
  readonly routerBias: Tensor | null;
}

/** A router's weights; O outputs. */
export interface RouterViews {
  /** (2 C, C); null for a linear router. */
  readonly hidden: Tensor | null;
  /** (O, C), or (O, 2 C) after a hidden layer. */
  readonly output: Tensor;
}

/** Places in a flat array of `size` elements: matrices in [0, decayed), norms and bias in [decayed, size). */
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
    table.filter(({ kind }) => kind !== "matrix").forEach(place);
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
    function router({ name, outputs }: RouterSpec): RouterViews {
      if (config.router!.architecture === "linear") return { hidden: null, output: view(name, [outputs, c]) };
      return { hidden: view(`${name}.hidden`, [2 * c, c]), output: view(`${name}.output`, [outputs, 2 * c]) };
    }
    const routers = routerTable(config);
    const bias = this.places.get(ROUTER_BIAS);
    const embedding = view("model.embed_tokens", [paddedVocabSize(config), c]);
    return {
      flat,
      embedding,
      layers: Array.from({ length: numUniqueLayers(config) }, (_, u) => ({
        inputNorm: view(`model.layers.${u}.input_layernorm`, [c]),
        qkv: view(`model.layers.${u}.self_attn.q_proj`, [(h + 2 * g) * d, c]),
        q: view(`model.layers.${u}.self_attn.q_proj`, [h * d, c]),
        output: view(`model.layers.${u}.self_attn.o_proj`, [c, h * d]),
        postAttentionNorm: view(`model.layers.${u}.post_attention_layernorm`, [c]),
        gateUp: view(`model.layers.${u}.mlp.gate_proj`, [2 * f, c]),
        down: view(`model.layers.${u}.mlp.down_proj`, [c, f]),
      })),
      norm: view("model.norm", [c]),
      head: config.tieWordEmbeddings ? embedding : view("lm_head", [paddedVocabSize(config), c]),
      routers: routers.filter(({ isAuxiliary }) => !isAuxiliary).map(router),
      auxiliaryRouters: routers.filter(({ isAuxiliary }) => isAuxiliary).map(router),
      routerBias: bias
        ? viewTensor(flat, { start: bias.start, shape: bias.spec.shape, label: ROUTER_BIAS })
        : null,
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
