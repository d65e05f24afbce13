import { sigmoid } from "./sigmoid.ts";

/** Router logits (n) and labels (n): 1 for a candidate that was kept, 0 for one that was not. */
export interface BinaryCrossEntropyInput {
  readonly logits: Float64Array;
  readonly labels: ArrayLike<number>;
}

/** Weights of the two terms in the loss that is differentiated. */
export interface BinaryCrossEntropyCoefficients {
  readonly coefficient: number;
  readonly zCoefficient: number;
}

/**
 * Both terms for each candidate, before their coefficients, and whether its logit says what its label does; (n) each.
 *
 * losses = -y log sigmoid(l) - (1 - y) log(1 - sigmoid(l)), as max(l, 0) - l y + log(1 + exp(-|l|)),
 * which cannot overflow;
 * squares = l^2, the z-loss of a router with one output (the square of a logsumexp over one value);
 * agreements = 1 where the label is 1 just where l > 0, else 0: their mean is the sampling accuracy.
 */
export function binaryCrossEntropy(
  { logits, labels }: BinaryCrossEntropyInput,
): { losses: Float64Array; squares: Float64Array; agreements: Float64Array } {
  return {
    losses: logits.map((l, i) => Math.max(l, 0) - l * labels[i]! + Math.log1p(Math.exp(-Math.abs(l)))),
    squares: logits.map((l) => l * l),
    agreements: logits.map((l, i) => Number((l > 0) === (labels[i] === 1))),
  };
}

/**
 * Gradient of coefficient * mean(losses) + zCoefficient * mean(squares) over the n candidates; (n).
 *
 * gradLogits = (coefficient (sigmoid(l) - y) + 2 zCoefficient l) / n.
 */
export function binaryCrossEntropyBackward(
  { logits, labels }: BinaryCrossEntropyInput,
  { coefficient, zCoefficient }: BinaryCrossEntropyCoefficients,
): Float64Array {
  return logits.map((l, i) =>
    (coefficient * (sigmoid(l) - labels[i]!) + 2 * zCoefficient * l) / logits.length
  );
}
