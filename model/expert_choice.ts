/**
 * Expert choice: before each recursion step a router scores the tokens still in play, and the step keeps some of them.
 *
 * In training (and to reproduce the paper's figures) it keeps the k_r best of each sequence, which looks at later
 * tokens. Causal inference keeps a token when its own logit is positive: the auxiliary loss trains the logits to be
 * positive for kept tokens and negative for the others. Paper: arXiv 2507.10524, section 2.2.
 */
import type { Commands } from "../gpu/commands.ts";
import { binaryCrossEntropy } from "../gpu/kernels/binary_cross_entropy.ts";
import { gate, gateBackward } from "../gpu/kernels/gate.ts";
import { randomScore } from "../gpu/kernels/random_score.ts";
import { routerScore, routerScoreBackward } from "../gpu/kernels/router_score.ts";
import { thresholdSelect } from "../gpu/kernels/threshold.ts";
import { topK } from "../gpu/kernels/top_k.ts";
import type { Allocator } from "../gpu/memory.ts";
import { dynamicPacking, fixedPacking, type Packing } from "../gpu/packing.ts";
import { createTensor, type Tensor, tensorFrom } from "../gpu/tensor.ts";
import { type ExpertChoiceConfig, keptTokens, type RecursionConfig } from "./config.ts";

/** How a forward pass chooses tokens. */
export type Routing = "top-k" | "causal";

/** The decision of one recursion step: made from `candidates`, its result is `packing`. */
export interface Selection {
  /** Recursion step, counted from 0. */
  readonly step: number;
  readonly candidates: Packing;
  readonly packing: Packing;
  /** Tokens of each sequence that top-k keeps; null where the threshold decides. */
  readonly kept: number | null;
  /** (candidates) */
  readonly logits: Tensor;
  /** (packed rows) u32: which candidate each packed row is. */
  readonly chosen: Tensor;
  /** (packed rows): w = alpha * function(logit). */
  readonly gates: Tensor;
  /** (candidates): 1 for kept, 0 for others; what the auxiliary loss wants of the logits. */
  readonly labels: Tensor;
  /** (candidates + 1) u32: scratch of the threshold. */
  readonly prefix: Tensor;
  /** (candidates): binary cross-entropy and squared logit of each candidate. */
  readonly auxiliaryLosses: Tensor;
  readonly squaredLogits: Tensor;
  readonly gradLogits: Tensor;
  readonly gradGates: Tensor;
}

/** Sizes that the selections of a pass depend on. */
interface SelectionShape {
  readonly sequences: number;
  readonly tokens: number;
  readonly routing: Routing;
}

/** Buffers for the decisions of all steps; each step's candidates are what the step before kept. */
export function allocateSelections(
  device: Allocator,
  { router, recursion, full, shape: { sequences, tokens, routing } }: {
    router: ExpertChoiceConfig;
    recursion: RecursionConfig;
    full: Packing;
    shape: SelectionShape;
  },
): Selection[] {
  const kept = keptTokens(router, { numRecursions: recursion.numRecursions, tokens });
  const selections: Selection[] = [];
  for (let step = 0; step < recursion.numRecursions; step++) {
    const candidates = selections[step - 1]?.packing ?? full;
    const maximum = candidates.rows.maximum;
    const keepsAll = keepsEveryCandidate(router, { step, kept, tokens, routing });
    const packing = keepsAll
      ? candidates
      : routing === "top-k"
      ? fixedPacking(device, { sequences, kept: kept[step]! })
      : dynamicPacking(device, { maximum });
    const tensor = (label: string, size: number): Tensor => createTensor(device, { shape: [size], label });
    const identity = Uint32Array.from({ length: maximum }, (_, slot) => slot);
    selections.push({
      step,
      candidates,
      packing,
      kept: routing === "top-k" ? kept[step]! : null,
      logits: tensor("router logits", maximum),
      chosen: tensorFrom(device, {
        data: identity.subarray(0, packing.rows.maximum),
        label: "chosen candidates",
      }),
      gates: tensor("gates", packing.rows.maximum),
      labels: tensorFrom(device, { data: new Float32Array(maximum).fill(1), label: "router labels" }),
      prefix: createTensor(device, { shape: [maximum + 1], dtype: "u32", label: "prefix counts" }),
      auxiliaryLosses: tensor("auxiliary losses", maximum),
      squaredLogits: tensor("squared logits", maximum),
      gradLogits: tensor("router logits gradient", maximum),
      gradGates: tensor("gates gradient", packing.rows.maximum),
    });
  }
  return selections;
}

/** A step that has nothing to decide: top-k of all, or the first causal step when its capacity is 1. */
function keepsEveryCandidate(
  { capacities }: ExpertChoiceConfig,
  { step, kept, tokens, routing }: {
    step: number;
    kept: readonly number[];
    tokens: number;
    routing: Routing;
  },
): boolean {
  if (routing === "top-k") return kept[step] === (kept[step - 1] ?? tokens);
  return step === 0 && (capacities?.[0] ?? 1) === 1;
}

/** Records scores, choice and gates of one step. `state` (B * T, C). */
export function selectForward(
  commands: Commands,
  { selection, state, weight, seed }: { selection: Selection; state: Tensor; weight: Tensor; seed: Tensor },
  { router, sequences, recursion }: {
    router: ExpertChoiceConfig;
    sequences: number;
    recursion: RecursionConfig;
  },
): void {
  const { candidates, packing, logits, chosen, gates, labels, prefix, kept, step } = selection;
  if (router.random) {
    randomScore(commands, { logits, packing: candidates, seed }, { stream: step });
  } else {
    routerScore(commands, { x: state, packing: candidates, weight, logits }, {
      temperature: router.temperature,
    });
  }
  if (packing !== candidates) {
    if (kept === null) {
      const threshold = router.random ? randomThreshold(router, { step, recursion }) : 0;
      thresholdSelect(commands, { logits, candidates, prefix, chosen, packing }, { threshold });
    } else {
      const candidatesPerSequence = candidates.rows.maximum / sequences;
      topK(commands, { logits, candidates, chosen, labels, packing }, {
        sequences,
        candidatesPerSequence,
        kept,
      });
    }
  }
  gate(commands, { logits, chosen, gates }, { rows: packing.rows, ...gateFunction(router) });
}

/** The random control draws scores in [0, 1) and uses them as they are. */
function gateFunction(
  router: ExpertChoiceConfig,
): { alpha: number; function: ExpertChoiceConfig["function"] } {
  return { alpha: router.alpha, function: router.random ? "none" : router.function };
}

/** The score that a random token exceeds with probability c_r / c_{r-1}. */
function randomThreshold(
  { capacities }: ExpertChoiceConfig,
  { step, recursion: { numRecursions } }: { step: number; recursion: RecursionConfig },
): number {
  const capacity = (r: number): number => r < 0 ? 1 : capacities?.[r] ?? (numRecursions - r) / numRecursions;
  return 1 - capacity(step) / capacity(step - 1);
}

/** Records the step's auxiliary and z-loss per candidate, and their gradient for the logits. */
export function selectLosses(
  commands: Commands,
  { candidates, logits, labels, auxiliaryLosses, squaredLogits, gradLogits }: Selection,
  { router, scale }: { router: ExpertChoiceConfig; scale: number },
): void {
  const { rows } = candidates;
  binaryCrossEntropy(commands, {
    logits,
    labels,
    losses: auxiliaryLosses,
    squares: squaredLogits,
    gradLogits,
  }, {
    rows,
    coefficient: (auxiliaryCoefficient(router) * scale) / rows.maximum,
    zCoefficient: (zCoefficient(router) * scale) / rows.maximum,
  });
}

/** Weight of the auxiliary loss in the total. */
export function auxiliaryCoefficient(router: ExpertChoiceConfig): number {
  return router.auxiliary === "loss" && !router.random ? router.auxiliaryCoefficient : 0;
}

/** Weight of the z-loss in the total. */
export function zCoefficient(router: ExpertChoiceConfig): number {
  return router.random ? 0 : router.zCoefficient;
}

/**
 * Records the step's gradients: from the gates (and the losses, see `selectLosses`) to the logits, the router's weight
 * and the state. The choice itself is not differentiated.
 */
export function selectBackward(
  commands: Commands,
  { selection, state, weight, gradWeight, gradState }: {
    selection: Selection;
    state: Tensor;
    weight: Tensor;
    gradWeight: Tensor;
    gradState: Tensor;
  },
  { router }: { router: ExpertChoiceConfig },
): void {
  if (router.random) return;
  const { candidates, packing, logits, chosen, gradGates, gradLogits } = selection;
  gateBackward(commands, { logits, chosen, gradGates, gradLogits }, {
    rows: packing.rows,
    ...gateFunction(router),
  });
  routerScoreBackward(commands, {
    x: state,
    packing: candidates,
    weight,
    gradLogits,
    gradX: gradState,
    gradWeight,
  }, { temperature: router.temperature });
}
