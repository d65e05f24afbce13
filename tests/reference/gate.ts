import type { ExpertChoiceConfig } from "../../model/config.ts";
import { sigmoid } from "./sigmoid.ts";

/** What turns a logit into a gate. */
export type GateSettings = Pick<ExpertChoiceConfig, "function" | "alpha">;

/** Gates of the chosen candidates, w_i = alpha * f(logits[chosen_i]); logits (n), chosen and w (k). */
export function gate(
  { logits, chosen }: { logits: Float64Array; chosen: ArrayLike<number> },
  { function: name, alpha }: GateSettings,
): Float64Array {
  const weights = new Float64Array(chosen.length);
  for (let i = 0; i < chosen.length; i++) {
    const logit = logits[chosen[i]!]!;
    if (name === "sigmoid") weights[i] = alpha * sigmoid(logit);
    else if (name === "tanh") weights[i] = alpha * Math.tanh(logit);
    else weights[i] = alpha * logit;
  }
  return weights;
}

/**
 * gradLogits[chosen_i] = gradWeights_i * alpha * f'(logit), 0 for a candidate that was not chosen;
 * gradWeights (k), gradLogits (n).
 *
 * sigmoid' = s (1 - s), tanh' = 1 - tanh^2; the choice itself is not differentiated.
 */
export function gateBackward(
  { gradWeights, logits, chosen }: {
    gradWeights: Float64Array;
    logits: Float64Array;
    chosen: ArrayLike<number>;
  },
  { function: name, alpha }: GateSettings,
): Float64Array {
  const gradLogits = new Float64Array(logits.length);
  for (let i = 0; i < chosen.length; i++) {
    const logit = logits[chosen[i]!]!;
    let slope = 1;
    if (name === "sigmoid") slope = sigmoid(logit) * (1 - sigmoid(logit));
    else if (name === "tanh") slope = 1 - Math.tanh(logit) ** 2;
    gradLogits[chosen[i]!] = gradWeights[i]! * alpha * slope;
  }
  return gradLogits;
}
