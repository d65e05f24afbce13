import type { ModelConfig } from "../../model/config.ts";
import { addScaled } from "./rows.ts";

/** Tensors by their name in a checkpoint, row-major. */
export type Weights = ReadonlyMap<string, Float64Array>;

/** A model: its configuration and its unique weights. */
export interface Model {
  readonly config: ModelConfig;
  readonly weights: Weights;
}

/**
 * The weight of that name.
 *
 * @throws RangeError if the model does not have it
 */
export function weightOf({ weights }: Model, name: string): Float64Array {
  const weight = weights.get(name);
  if (!weight) throw new RangeError(`The model has no weight "${name}"`);
  return weight;
}

/** Name of the matrix that turns hidden states into logits. */
export function headName({ tieWordEmbeddings }: ModelConfig): string {
  return tieWordEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight";
}

/** Name of the bias of loss-free balancing, (N): the one weight that gradients do not train. */
export const routerBias = "model.router.bias";

/** A zero gradient for every weight that is trained. */
export function zeroGradients(weights: Weights): Map<string, Float64Array> {
  const trained = weights.entries().filter(([name]) => name !== routerBias);
  return new Map(trained.map(([name, weight]) => [name, new Float64Array(weight.length)]));
}

/** Adds to a weight's gradient: a weight that is used several times sums the gradients of all its uses. */
export function addGradient(
  gradients: Weights,
  { name, value }: { name: string; value: Float64Array },
): void {
  addScaled(gradients.get(name)!, { source: value });
}
