import { addScaled, dot, row } from "./rows.ts";

/** The candidates of a linear router: rows `indices` (n) of x (rows, C), scored by weight (C). */
export interface RouterScoreInput {
  readonly x: Float64Array;
  readonly weight: Float64Array;
  readonly indices: ArrayLike<number>;
}

/** logits_i = x[indices_i] . weight / temperature, (n). */
export function routerScore(
  { x, weight, indices }: RouterScoreInput,
  { temperature }: { temperature: number },
): Float64Array {
  const width = weight.length;
  const logits = new Float64Array(indices.length);
  for (let i = 0; i < indices.length; i++) {
    logits[i] = dot(row(x, { index: indices[i]!, width }), weight) / temperature;
  }
  return logits;
}

/**
 * Gradients of `routerScore`; gradLogits (n), gradX (rows, C), gradWeight (C).
 *
 * gradX[indices_i] += gradLogits_i weight / temperature, 0 at all other rows;
 * gradWeight = sum_i gradLogits_i x[indices_i] / temperature.
 */
export function routerScoreBackward(
  { gradLogits, x, weight, indices }: RouterScoreInput & { readonly gradLogits: Float64Array },
  { temperature }: { temperature: number },
): { gradX: Float64Array; gradWeight: Float64Array } {
  const width = weight.length;
  const gradX = new Float64Array(x.length);
  const gradWeight = new Float64Array(width);
  for (let i = 0; i < indices.length; i++) {
    const scale = gradLogits[i]! / temperature;
    addScaled(row(gradX, { index: indices[i]!, width }), { source: weight, scale });
    addScaled(gradWeight, { source: row(x, { index: indices[i]!, width }), scale });
  }
  return { gradX, gradWeight };
}
