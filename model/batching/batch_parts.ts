/** The parts of a model as depth-wise batching runs them: what a token enters by, the block that recurs, what it leaves by. */
import type { ModelConfig } from "../config.ts";
import type { LayerWeights, ModelWeights } from "../model_weights.ts";
import { layerPlan } from "../parameters.ts";

/** Unique layers of each part. */
export interface BatchParts {
  readonly entry: readonly number[];
  readonly block: readonly number[];
  /** Times that a token may run the block. */
  readonly steps: number;
  readonly exit: readonly number[];
}

/**
 * A model whose recursion repeats a block as a whole recurs; of others the block is all the layers between the first and
 * the last unshared ones, unrolled, and runs once: ordinary continuous batching.
 */
export function batchParts(config: ModelConfig): BatchParts {
  const { first, steps, last } = layerPlan(config);
  if (!config.recursion) return { entry: [], block: first, steps: 1, exit: [] };
  const recurs = config.recursion.sharing.endsWith("cycle");
  return {
    entry: first,
    block: recurs ? steps[0]! : steps.flat(),
    steps: recurs ? steps.length : 1,
    exit: last,
  };
}

/** The weights of a part's layers. */
export function partWeights({ layers }: ModelWeights, part: readonly number[]): LayerWeights[] {
  return part.map((unique) => layers[unique]!);
}
