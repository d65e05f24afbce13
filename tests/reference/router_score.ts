import { addScaled, dot, row } from "./rows.ts";

/** The candidates of a linear router: rows `indices` (n) of x (rows, C), scored by weight (O, C). */
export interface RouterScoreInput {
  readonly x: Float64Array;
  readonly weight: Float64Array;
  readonly indices: ArrayLike<number>;
}

/** Settings of a linear router. */
export interface RouterScoreSettings {
  readonly temperature: number;
  /** O, 1 unless told. */
  readonly outputs?: number;
}

/** logits_io = x[indices_i] . weight_o / temperature, (n, O). */
export function routerScore(
  { x, weight, indices }: RouterScoreInput,
  { temperature, outputs = 1 }: RouterScoreSettings,
): Float64Array {
  const width = weight.length / outputs;
  const logits = new Float64Array(indices.length * outputs);
  for (let i = 0; i < indices.length; i++) {
    const candidate = row(x, { index: indices[i]!, width });
    for (let o = 0; o < outputs; o++) {
      logits[i * outputs + o] = dot(candidate, row(weight, { index: o, width })) / temperature;
    }
  }
  return logits;
}

/**
 * Gradients of `routerScore`; gradLogits (n, O), gradX (rows, C), gradWeight (O, C).
 *
 * gradX[indices_i] += sum_o gradLogits_io weight_o / temperature, 0 at all other rows;
 * gradWeight_o = sum_i gradLogits_io x[indices_i] / temperature.
 */
export function routerScoreBackward(
  { gradLogits, x, weight, indices }: RouterScoreInput & { readonly gradLogits: Float64Array },
  { temperature, outputs = 1 }: RouterScoreSettings,
): { gradX: Float64Array; gradWeight: Float64Array } {
  const width = weight.length / outputs;
  const gradX = new Float64Array(x.length);
  const gradWeight = new Float64Array(weight.length);
  for (let i = 0; i < indices.length; i++) {
    const candidate = { index: indices[i]!, width };
    for (let o = 0; o < outputs; o++) {
      const scale = gradLogits[i * outputs + o]! / temperature;
      addScaled(row(gradX, candidate), { source: row(weight, { index: o, width }), scale });
      addScaled(row(gradWeight, { index: o, width }), { source: row(x, candidate), scale });
    }
  }
  return { gradX, gradWeight };
}
