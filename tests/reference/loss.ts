import { binaryCrossEntropy } from "./binary_cross_entropy.ts";
import { crossEntropy } from "./cross_entropy.ts";
import { expertChoice, type ModelTape } from "./transformer.ts";
import type { Model } from "./weights.ts";

/** The parts of a loss; all but the total before their coefficients, in nats where they are entropies. */
export interface LossTerms {
  /** Mean over all B * T positions. */
  readonly crossEntropy: number;
  /** Sum over recursion steps of the mean binary cross-entropy over that step's candidates. */
  readonly auxiliary: number;
  /** Sum over recursion steps of the mean squared logit over that step's candidates. */
  readonly z: number;
  /** crossEntropy + auxiliaryCoefficient * auxiliary + zCoefficient * z: what is differentiated. */
  readonly total: number;
}

/** Mean of the values, 0 of none. */
function mean(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}

/** Loss terms of a forward; targets (B, T) is the token wanted at each position. */
export function lossTerms(
  { config }: Model,
  { tape, targets }: { tape: ModelTape; targets: ArrayLike<number> },
): LossTerms {
  const router = expertChoice(config);
  const perStep = tape.steps.map(binaryCrossEntropy);
  const terms = {
    crossEntropy: mean(crossEntropy({ logits: tape.logits, targets }, config)),
    auxiliary: perStep.reduce((sum, { losses }) => sum + mean(losses), 0),
    z: perStep.reduce((sum, { squares }) => sum + mean(squares), 0),
  };
  const auxiliaryCoefficient = router?.auxiliary === "loss" ? router.auxiliaryCoefficient : 0;
  const zCoefficient = router?.zCoefficient ?? 0;
  return {
    ...terms,
    total: terms.crossEntropy + auxiliaryCoefficient * terms.auxiliary + zCoefficient * terms.z,
  };
}
