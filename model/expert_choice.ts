/**
 * Expert choice: before each recursion step a router scores the tokens still in play, and the step keeps some of them.
 *
 * In training (and to reproduce the paper's figures) it keeps the k_r best of each sequence, which looks at later
 * tokens. Causal inference keeps a token when its own logit is positive: the auxiliary loss trains the logits to be
 * positive for kept tokens and negative for the others; an auxiliary router, where there is one, learns that in place of
 * the router and decides in its place. Paper: arXiv 2507.10524, section 2.2.
 */
import type { Commands } from "../gpu/commands.ts";
import { binaryCrossEntropy } from "../gpu/kernels/binary_cross_entropy.ts";
import { gate, gateBackward } from "../gpu/kernels/gate.ts";
import { randomScore } from "../gpu/kernels/random_score.ts";
import { thresholdSelect } from "../gpu/kernels/threshold.ts";
import { topK } from "../gpu/kernels/top_k.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { ExpertChoiceConfig, ModelConfig } from "./config.ts";
import type { RouterWeights } from "./model_weights.ts";
import { routerBackward, routerForward, type RouterRun } from "./router.ts";
import type { ExpertSelection, SelectionShape } from "./selection.ts";

/** The routers of one step; the auxiliary one is null unless the configuration has them. */
export interface StepRouters {
  readonly main: RouterWeights;
  readonly auxiliary: RouterWeights | null;
}

/** What the decisions of a pass have in common. */
export interface ExpertContext {
  readonly config: ModelConfig;
  readonly shape: SelectionShape;
  /** (1) u32: seed of the random router. */
  readonly seed: Tensor;
}

function routerOf({ router }: ModelConfig): ExpertChoiceConfig {
  return router as ExpertChoiceConfig;
}

function mainRun(
  { router: activations, candidates: packing }: ExpertSelection,
  weights: RouterWeights,
): RouterRun {
  return { weights, activations, packing };
}

function auxiliaryRun(
  { auxiliary, candidates: packing }: ExpertSelection,
  weights: RouterWeights,
): RouterRun {
  return { weights, activations: auxiliary!.router, packing };
}

/** Records scores, choice and gates of one step. `state` (state rows, C). */
export function selectForward(
  commands: Commands,
  { selection, state, routers }: { selection: ExpertSelection; state: Tensor; routers: StepRouters },
  { config, shape, seed }: ExpertContext,
): void {
  const router = routerOf(config);
  const { candidates, packing, logits, auxiliary, chosen, gates, labels, prefix, ranges, step } = selection;
  if (router.random) {
    const byPosition = shape.routing === "causal";
    randomScore(commands, { logits, packing: candidates, seed }, { stream: step, byPosition });
  } else {
    routerForward(commands, { x: state, run: mainRun(selection, routers.main), logits }, router);
    if (auxiliary) {
      const run = auxiliaryRun(selection, routers.auxiliary!);
      routerForward(commands, { x: state, run, logits: auxiliary.logits }, router);
    }
  }
  if (packing !== candidates) {
    if (ranges === null) {
      const deciding = router.random ? logits : auxiliary?.logits ?? logits;
      const threshold = router.random ? randomThreshold(config, step) : 0;
      thresholdSelect(commands, { logits: deciding, candidates, prefix, chosen, packing }, { threshold });
    } else {
      packing.rows.indirect?.record(commands, packing.rows.count);
      topK(commands, { logits, candidates, ranges, chosen, labels, packing }, {
        sequences: shape.lengths.length,
        longest: shape.lengths.reduce((most, length) => Math.max(most, length), 0),
      });
    }
  }
  gate(commands, { logits, chosen, gates }, { rows: packing.rows, ...gateFunction(router) });
}

/** The random control draws scores in (0, 1) and uses them as they are. */
function gateFunction(
  router: ExpertChoiceConfig,
): { alpha: number; function: ExpertChoiceConfig["function"] } {
  return { alpha: router.alpha, function: router.random ? "none" : router.function };
}

/** The score that a random token exceeds with probability c_r / c_{r-1}. */
export function randomThreshold(config: ModelConfig, step: number): number {
  const { capacities } = routerOf(config);
  const { numRecursions } = config.recursion!;
  const capacity = (r: number): number => r < 0 ? 1 : capacities?.[r] ?? (numRecursions - r) / numRecursions;
  return 1 - capacity(step) / capacity(step - 1);
}

/** Records the step's auxiliary and z-loss per candidate, and the gradient of their means, times `scale`. */
export function selectLosses(
  commands: Commands,
  selection: ExpertSelection,
  { config, scale }: { config: ModelConfig; scale: number },
): void {
  const router = routerOf(config);
  const { candidates: { rows }, labels, logits, gradLogits, auxiliary } = selection;
  const { auxiliaryLosses, squaredLogits, agreements } = selection;
  const coefficient = auxiliaryCoefficient(router) * scale;
  const zTerm = zCoefficient(router) * scale;
  if (!auxiliary) {
    const out = { losses: auxiliaryLosses, squares: squaredLogits, agreements, gradLogits };
    binaryCrossEntropy(commands, { logits, labels, ...out }, { rows, coefficient, zCoefficient: zTerm });
    return;
  }
  // The router itself has no targets then, the auxiliary router no z-loss.
  const [losses, squares, unusedAgreements] = auxiliary.unused as [Tensor, Tensor, Tensor];
  binaryCrossEntropy(commands, {
    logits,
    labels,
    losses,
    squares: squaredLogits,
    agreements: unusedAgreements,
    gradLogits,
  }, { rows, coefficient: 0, zCoefficient: zTerm });
  binaryCrossEntropy(commands, {
    logits: auxiliary.logits,
    labels,
    losses: auxiliaryLosses,
    squares,
    agreements,
    gradLogits: auxiliary.gradLogits,
  }, { rows, coefficient, zCoefficient: 0 });
}

/** Weight of the auxiliary loss, or of the auxiliary router's loss, in the total. */
export function auxiliaryCoefficient(router: ExpertChoiceConfig): number {
  return router.auxiliary === "none" || router.random ? 0 : router.auxiliaryCoefficient;
}

/** Weight of the z-loss in the total. */
export function zCoefficient(router: ExpertChoiceConfig): number {
  return router.random ? 0 : router.zCoefficient;
}

/**
 * Records the step's gradients: from the gates (and the losses, see `selectLosses`) to the logits, the routers' weights
 * and the state, which an auxiliary router's gradient does not reach. The choice itself is not differentiated.
 */
export function selectBackward(
  commands: Commands,
  { selection, state, routers, gradients, gradState }: {
    selection: ExpertSelection;
    state: Tensor;
    routers: StepRouters;
    gradients: StepRouters;
    gradState: Tensor;
  },
  { config }: ExpertContext,
): void {
  const router = routerOf(config);
  if (router.random) return;
  const { packing, logits, chosen, gradGates, gradLogits, auxiliary } = selection;
  gateBackward(commands, { logits, chosen, gradGates, gradLogits }, {
    rows: packing.rows,
    ...gateFunction(router),
  });
  routerBackward(commands, {
    x: state,
    run: mainRun(selection, routers.main),
    gradients: gradients.main,
    gradLogits,
    gradX: gradState,
  }, router);
  if (!auxiliary) return;
  routerBackward(commands, {
    x: state,
    run: auxiliaryRun(selection, routers.auxiliary!),
    gradients: gradients.auxiliary!,
    gradLogits: auxiliary.gradLogits,
    gradX: null,
  }, router);
}
