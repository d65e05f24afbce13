import { binaryCrossEntropy } from "./binary_cross_entropy.ts";
import { crossEntropy } from "./cross_entropy.ts";
import { balancingLoss } from "./depth_balance.ts";
import { decidingRouter } from "./expert_choice.ts";
import type { ModelTape } from "./transformer.ts";
import type { Model } from "./weights.ts";

/** The parts of a loss; all but the total before their coefficients, in nats where they are entropies. */
export interface LossTerms {
  /** Mean over all B * T positions. */
  readonly crossEntropy: number;
  /**
   * Expert choice: sum over recursion steps of the mean binary cross-entropy over that step's candidates, of
   * the auxiliary router where there is one.
   */
  readonly auxiliary: number;
  /** Token choice: sum over depths of f_j P_j, f_j = N * fraction of tokens, P_j = mean probability. */
  readonly balancing: number;
  /**
   * Expert choice: sum over recursion steps of the mean squared logit over that step's candidates. Token
   * choice: mean squared logsumexp of a token's logits.
   */
  readonly z: number;
  /** crossEntropy + each of the others by its coefficient: what is differentiated. */
  readonly total: number;
}

/** Mean of the values, 0 of none. */
function mean(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Losses of the choice that the model's router makes, by coefficient and before it. */
function routerTerms(
  { config: { router } }: Model,
  { steps, tokenChoice }: ModelTape,
): Omit<LossTerms, "crossEntropy"> {
  if (router?.kind === "expert_choice") {
    const auxiliary = sum(steps.map((step) => {
      const { logits } = decidingRouter(step);
      return mean(binaryCrossEntropy({ logits, labels: step.labels }).losses);
    }));
    const z = sum(steps.map(({ router: { logits } }) => mean(logits.map((logit) => logit ** 2))));
    const coefficient = router.auxiliary === "none" ? 0 : router.auxiliaryCoefficient;
    return { auxiliary, balancing: 0, z, total: coefficient * auxiliary + router.zCoefficient * z };
  }
  if (router?.kind === "token_choice") {
    const { balance, choice } = tokenChoice!;
    const balancing = balancingLoss(balance);
    const z = mean(choice.squares);
    const coefficient = router.balancing === "loss" ? router.balancingCoefficient : 0;
    return { auxiliary: 0, balancing, z, total: coefficient * balancing + router.zCoefficient * z };
  }
  return { auxiliary: 0, balancing: 0, z: 0, total: 0 };
}

/** Loss terms of a forward; targets (B, T) is the token wanted at each position. */
export function lossTerms(
  model: Model,
  { tape, targets }: { tape: ModelTape; targets: ArrayLike<number> },
): LossTerms {
  const entropy = mean(crossEntropy({ logits: tape.logits, targets }, model.config));
  const terms = routerTerms(model, tape);
  return { ...terms, crossEntropy: entropy, total: entropy + terms.total };
}
