/**
 * Where every weight lives. Weights, gradients and both AdamW moments are four flat arrays of the same layout: matrices
 * first (weight decay), norms after them (none). Projections that read the same input stand side by side, so that one
 * matrix product serves q, k and v, and one gate and up.
 */
import type { Allocator } from "../gpu/memory.ts";
import { BINDING_ALIGNMENT, createTensor, ELEMENT_BYTES, type Tensor, viewTensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { arrangeWeights, type LayerWeights, type ModelWeights } from "./model_weights.ts";
import { paddedVocabSize, type ParameterSpec, parameterTable } from "./parameters.ts";

/** Where a parameter stands in a flat array; `rows` counts the padding rows of the vocabulary too. */
export interface ParameterPlace {
  readonly spec: ParameterSpec;
  readonly start: number;
}

/** The weights of one layer, or their gradients, in a flat array. */
export type LayerViews = LayerWeights<Tensor>;

/** One flat array seen as the model's weights (or their gradients, or their moments). */
export interface ParameterViews extends ModelWeights<Tensor> {
  readonly flat: Tensor;
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
    const view = (name: string, shape: readonly number[]): Tensor =>
      viewTensor(flat, { start: this.places.get(name)!.start, shape, label: `${flat.label} ${name}` });
    // What stands below a matrix's first part follows it in the array.
    const matrix = ([name]: readonly string[], shape: readonly number[]): Tensor => view(name!, shape);
    return { flat, ...arrangeWeights(this.config, { matrix, tensor: view }) };
  }
}

function isFusedWithPrevious(name: string): boolean {
  return /\.(k_proj|v_proj|up_proj)\.weight$/.test(name);
}

function alignElements(count: number): number {
  const elements = BINDING_ALIGNMENT / ELEMENT_BYTES;
  return Math.ceil(count / elements) * elements;
}
