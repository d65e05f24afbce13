/**
 * Token choice: one router looks at each token once, before the recursion, and gives it a depth. A token runs that many
 * steps and then leaves with one gated addition to the state that it came with. Paper: arXiv 2507.10524, section 2.2,
 * intermediate steps without gates as in the authors' code.
 *
 * Causal by nature: training and inference route alike. What has to be learned is balance, by a loss or by a bias.
 */
import type { Commands } from "../gpu/commands.ts";
import { balancingLoss, depthLoad, updateBias } from "../gpu/kernels/depth_balance.ts";
import { depthChoice, depthChoiceBackward, type DepthChoiceSettings } from "../gpu/kernels/depth_choice.ts";
import { randomScore } from "../gpu/kernels/random_score.ts";
import { sum } from "../gpu/kernels/sum.ts";
import { thresholdSelect } from "../gpu/kernels/threshold.ts";
import type { Allocator } from "../gpu/memory.ts";
import { dynamicPacking, type Packing } from "../gpu/packing.ts";
import { createTensor, type Dtype, type Tensor, writeTensor } from "../gpu/tensor.ts";
import { ConfigError, type ModelConfig, type TokenChoiceConfig } from "./config.ts";
import type { RouterWeights } from "./model_weights.ts";
import { allocateRouter, type RouterActivations, routerBackward, routerForward } from "./router.ts";
import type { Selection } from "./selection.ts";

/** The decision of token choice, for all M tokens at once; R recursions. */
export interface DepthDecision {
  /** Every token. */
  readonly full: Packing;
  readonly router: RouterActivations | null;
  /** (M, R) */
  readonly logits: Tensor;
  readonly probabilities: Tensor;
  readonly gradLogits: Tensor;
  /** (M) f32: 1..R. */
  readonly depths: Tensor;
  /** (M): the probability of the depth, alpha included. */
  readonly gates: Tensor;
  readonly gradGates: Tensor;
  /** (M): zeros that the steps, whose output replaces the state, leave. */
  readonly unusedGradGates: Tensor;
  /** (M): squared log-sum-exp of the logits. */
  readonly squares: Tensor;
  /** (R) u32: tokens of each depth, in this pass and since `totals` was cleared. */
  readonly load: Tensor;
  readonly totals: Tensor;
  /** (R): mean probability. */
  readonly means: Tensor;
  /** (R): zeros where balancing has no bias. */
  readonly noBias: Tensor;
  /** (1) u32: a depth that every token gets; 0 lets the router decide. */
  readonly forced: Tensor;
  /** The tokens of each recursion step; the first has all. */
  readonly selections: readonly Selection[];
}

/** Buffers for the decision and the tokens of each step. */
export function allocateDepthDecision(
  device: Allocator,
  { config: { router, recursion, hiddenSize }, full, backward }: {
    config: ModelConfig;
    full: Packing;
    backward: boolean;
  },
): DepthDecision {
  const { numRecursions } = recursion!;
  const { maximum } = full.rows;
  const tensor = (label: string, shape: readonly number[], dtype: Dtype = "f32"): Tensor =>
    createTensor(device, { shape, dtype, label });
  const selections: Selection[] = [];
  for (let step = 0; step < numRecursions; step++) {
    const candidates = selections[step - 1]?.packing ?? full;
    selections.push({
      step,
      candidates,
      packing: step === 0 ? full : dynamicPacking(device, { maximum }),
      chosen: tensor("chosen candidates", [maximum], "u32"),
      prefix: tensor("prefix counts", [maximum + 1], "u32"),
    });
  }
  return {
    full,
    router: allocateRouter(device, { router: router!, hiddenSize, packing: full, backward }),
    logits: tensor("router logits", [maximum, numRecursions]),
    probabilities: tensor("depth probabilities", [maximum, numRecursions]),
    gradLogits: tensor("router logits gradient", [backward ? maximum : 0, numRecursions]),
    depths: tensor("depths", [maximum]),
    gates: tensor("gates", [maximum]),
    gradGates: tensor("gates gradient", [maximum]),
    unusedGradGates: tensor("unused gates gradient", [maximum]),
    squares: tensor("squared log-sum-exp", [maximum]),
    load: tensor("depth load", [numRecursions], "u32"),
    totals: tensor("depth load of the step", [numRecursions], "u32"),
    means: tensor("mean probabilities", [numRecursions]),
    noBias: tensor("no bias", [numRecursions]),
    forced: tensor("forced depth", [1], "u32"),
    selections,
  };
}

/**
 * Sends every token to one depth, whatever the router says; 0 leaves the choice to the router again.
 *
 * @throws ConfigError for a model without token choice, RangeError for a depth that it does not have.
 */
export function writeForcedDepth(
  device: Allocator,
  decision: DepthDecision | null,
  { config, depth }: { config: ModelConfig; depth: number },
): void {
  if (!decision) throw new ConfigError("Cannot force a depth without token choice");
  const { numRecursions } = config.recursion!;
  if (!(depth >= 0 && depth <= numRecursions)) {
    throw new RangeError(`Cannot force depth ${depth}: the model has 1 to ${numRecursions}`);
  }
  writeTensor(device, decision.forced, Uint32Array.of(depth));
}

/** A model's router: its weights and, for loss-free balancing, its bias. */
export interface DepthRouter {
  readonly weights: RouterWeights;
  readonly bias: Tensor | null;
}

/** Settings of a pass. */
export interface DepthContext {
  readonly config: ModelConfig;
  /** (1) u32: seed of the random router. */
  readonly seed: Tensor;
  /** Whether a token's random scores follow from its position alone. */
  readonly byPosition: boolean;
}

function routerOf({ router }: ModelConfig): TokenChoiceConfig {
  return router as TokenChoiceConfig;
}

/** The random control draws scores in (0, 1) and uses them as they are. */
function choiceSettings(config: ModelConfig, { rows }: Packing): DepthChoiceSettings {
  const router = routerOf(config);
  const { numRecursions: recursions } = config.recursion!;
  return { rows, recursions, alpha: router.alpha, function: router.random ? "none" : router.function };
}

/** Records every token's depth and gate. `state` (M, C). */
export function depthScores(
  commands: Commands,
  { decision, state, router: { weights, bias } }: {
    decision: DepthDecision;
    state: Tensor;
    router: DepthRouter;
  },
  { config, seed, byPosition }: DepthContext,
): void {
  const { full, logits, probabilities, depths, gates, squares, forced, noBias } = decision;
  const router = routerOf(config);
  const settings = choiceSettings(config, full);
  if (router.random) {
    const { recursions: outputs } = settings;
    randomScore(commands, { logits, packing: full, seed }, { stream: 0, outputs, byPosition });
  } else {
    const run = { weights, activations: decision.router, packing: full };
    routerForward(commands, { x: state, run, logits }, router);
  }
  depthChoice(commands, {
    logits,
    bias: bias ?? noBias,
    forced,
    probabilities,
    depths,
    gates,
    squares,
  }, settings);
}

/** Records every token's depth and gate, and the tokens of each step. `state` (M, C). */
export function depthForward(
  commands: Commands,
  { decision, ...scored }: { decision: DepthDecision; state: Tensor; router: DepthRouter },
  context: DepthContext,
): void {
  depthScores(commands, { decision, ...scored }, context);
  const { depths: logits, selections } = decision;
  for (const { step, candidates, packing, chosen, prefix } of selections.slice(1)) {
    thresholdSelect(commands, { logits, candidates, prefix, chosen, packing }, {
      threshold: step,
      scores: "state",
    });
  }
}

/** Weight of the balancing loss in the total. */
export function balancingCoefficient(router: TokenChoiceConfig): number {
  return router.balancing === "loss" && !router.random ? router.balancingCoefficient : 0;
}

/** Weight of the z-loss in the total. */
export function depthZCoefficient(router: TokenChoiceConfig): number {
  return router.random ? 0 : router.zCoefficient;
}

/** Records the load of the depths, and the balancing and z-loss, added to their slots of `losses`. */
export function depthLosses(
  commands: Commands,
  { decision: { full: { rows }, depths, probabilities, load, totals, means, squares }, losses }: {
    decision: DepthDecision;
    losses: Tensor;
  },
  { config, scale, slots }: {
    config: ModelConfig;
    scale: number;
    slots: { readonly balancing: number; readonly z: number };
  },
): void {
  const { numRecursions: recursions } = config.recursion!;
  depthLoad(commands, { depths, probabilities, load, totals, means }, { rows, recursions });
  balancingLoss(commands, { load, means, losses }, { rows, recursions, slot: slots.balancing, scale });
  sum(commands, { values: squares, out: losses }, {
    rows,
    slot: slots.z,
    scale,
    mean: true,
    accumulate: true,
  });
}

/**
 * Records the gradients from the gates and the losses (times `lossScale`; their load is that of `depthLosses`) to the
 * router's weights and the state that it looked at. The choice is not differentiated.
 */
export function depthBackward(
  commands: Commands,
  { decision, state, weights, gradients, gradState }: {
    decision: DepthDecision;
    state: Tensor;
    weights: RouterWeights;
    gradients: RouterWeights;
    gradState: Tensor;
  },
  { config, lossScale }: { config: ModelConfig; lossScale: number },
): void {
  const router = routerOf(config);
  if (router.random) return;
  const { full, logits, probabilities, depths, gradGates, load, gradLogits } = decision;
  depthChoiceBackward(commands, { logits, probabilities, depths, gradGates, load, gradLogits }, {
    ...choiceSettings(config, full),
    balancingCoefficient: balancingCoefficient(router) * lossScale,
    zCoefficient: depthZCoefficient(router) * lossScale,
  });
  const run = { weights, activations: decision.router, packing: full };
  routerBackward(commands, { x: state, run, gradients, gradLogits, gradX: gradState }, router);
}

/** Records the bias's update after an optimizer step: up for depths with less than the mean load, down for others. */
export function depthBiasUpdate(
  commands: Commands,
  { decision: { totals, forced }, bias }: { decision: DepthDecision; bias: Tensor },
  { config }: { config: ModelConfig },
): void {
  updateBias(commands, { totals, bias, forced }, { rate: routerOf(config).biasUpdateRate });
}
