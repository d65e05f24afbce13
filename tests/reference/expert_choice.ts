/**
 * Expert-choice recursion (Mixture-of-Recursions, arXiv 2507.10524): every step lets its router choose among
 * the tokens that ran the step before, runs the block on the chosen ones alone, and writes the gated result
 * back.
 */
import type { ExpertChoiceConfig } from "../../model/config.ts";
import { binaryCrossEntropyBackward } from "./binary_cross_entropy.ts";
import { gate, gateBackward } from "./gate.ts";
import { gatherRows, gatherRowsBackward } from "./gather_rows.ts";
import { packQueries, packRows } from "./packing.ts";
import { routerBackward, routerForward, type RouterTape } from "./router.ts";
import { addScaled } from "./rows.ts";
import { scatterRows, scatterRowsBackward } from "./scatter_rows.ts";
import type { SharedKeyValues } from "./self_attention.ts";
import { packSpans } from "./spans.ts";
import { stackBackward, stackForward, type StackTape } from "./stack.ts";
import { type Kept, thresholdChoice } from "./threshold.ts";
import { topK } from "./top_k.ts";
import type { Model, Weights } from "./weights.ts";

/**
 * How a step chooses: `top_k` as in training (k_r per sequence, not causal), `threshold` as in inference
 * (logit above it, causal).
 */
export type Selection = { readonly kind: "top_k" } | {
  readonly kind: "threshold";
  readonly threshold: number;
};

/** One recursion step as it ran; rows are indices into the state of B * T rows. */
export interface ExpertChoiceStep {
  /** State after the step, (B * T, C); the router has the one before. */
  readonly out: Float64Array;
  /** Scores of the rows that ran the step before; its logits give the gates. */
  readonly router: RouterTape;
  /** The second router, which only learns to predict the choice; null unless `auxiliary` is "router". */
  readonly auxiliaryRouter: RouterTape | null;
  /** 1 for a candidate that was chosen, else 0; (n). */
  readonly labels: Int32Array;
  /** Chosen candidates by their place among the candidates (k), as rows (k); their number in each sequence (B). */
  readonly chosen: Int32Array;
  readonly indices: Int32Array;
  readonly lengths: Int32Array;
  /** Gate of each chosen row, w = alpha * f(logit); (k). */
  readonly weights: Float64Array;
  /** The block on the chosen rows. */
  readonly block: StackTape;
}

/** The router whose logits the auxiliary loss holds to the top-k choice, and which decides in inference. */
export function decidingRouter(
  { router, auxiliaryRouter }: Pick<ExpertChoiceStep, "router" | "auxiliaryRouter">,
): RouterTape {
  return auxiliaryRouter ?? router;
}

/**
 * Tokens that step r, from 0, of N keeps of T: max(1, floor(c_r T)); with null capacities
 * max(1, floor((N - r) T / N)).
 */
function keptCount({ capacities }: ExpertChoiceConfig, { r, steps, tokens }: {
  r: number;
  steps: number;
  tokens: number;
}): number {
  const kept = capacities ? Math.floor(capacities[r]! * tokens) : Math.floor((steps - r) * tokens / steps);
  return Math.max(1, kept);
}

function choose(router: ExpertChoiceConfig, { selection, logits, lengths, r, steps, tokens }: {
  selection: Selection;
  logits: Float64Array;
  lengths: Int32Array;
  r: number;
  steps: number;
  tokens: number;
}): Kept {
  if (selection.kind === "top_k") {
    const k = keptCount(router, { r, steps, tokens });
    const chosen = topK({ logits }, { candidates: logits.length / lengths.length, k });
    const kept = lengths.map(() => k);
    return { chosen, lengths: kept, spans: packSpans(kept) };
  }
  const isUnconditional = r === 0 && (router.capacities === null || router.capacities[0] === 1);
  return thresholdChoice({ logits, lengths }, {
    threshold: isUnconditional ? -Infinity : selection.threshold,
  });
}

/** Runs all recursion steps on x (B * T, C), block layers given by their unique indices. */
export function expertChoiceForward(
  model: Model,
  { x, layers, router, sequences, selection, shared }: {
    x: Float64Array;
    layers: readonly number[];
    router: ExpertChoiceConfig;
    sequences: number;
    selection: Selection;
    shared: SharedKeyValues | null;
  },
): ExpertChoiceStep[] {
  const width = model.config.hiddenSize;
  const steps = model.config.recursion!.numRecursions;
  const tokens = x.length / width / sequences;
  const done: ExpertChoiceStep[] = [];
  let state = x;
  let candidates = Int32Array.from({ length: sequences * tokens }, (_, row) => row);
  let lengths: Int32Array = new Int32Array(sequences).fill(tokens);
  for (let r = 0; r < steps; r++) {
    const main = routerForward(model, { prefix: `model.routers.${r}`, x: state, candidates });
    const auxiliaryRouter = router.auxiliary === "router"
      ? routerForward(model, { prefix: `model.aux_routers.${r}`, x: state, candidates })
      : null;
    const scores = { router: main, auxiliaryRouter };
    const { logits } = selection.kind === "top_k" ? main : decidingRouter(scores);
    const { chosen, lengths: kept } = choose(router, { selection, logits, lengths, r, steps, tokens });
    const labels = new Int32Array(candidates.length);
    for (const i of chosen) labels[i] = 1;
    const indices = chosen.map((i) => candidates[i]!);
    const weights = gate({ logits: main.logits, chosen }, router);
    // The block sees the chosen rows in their order, at their original positions.
    const packing = shared ? packQueries(indices, { tokens }) : packRows(indices, { tokens, lengths: kept });
    const packed = gatherRows({ x: state, indices }, { width });
    const block = stackForward(model, { x: packed, layers, packing, shared });
    const { gating } = router;
    const out = scatterRows({ x: state, z: block.out, indices, weights }, { gating, width });
    done.push({ out, ...scores, labels, chosen, indices, lengths: kept, weights, block });
    state = out;
    candidates = indices;
    lengths = kept;
  }
  return done;
}

/**
 * Gradient of the recursion's input, (B * T, C); adds the gradients of the block's layers and of the routers
 * to `gradients`.
 *
 * The auxiliary loss and the z-loss of each step enter here with their coefficients, since they depend on its
 * logits alone. The choice is not differentiated, and the auxiliary router sends nothing back to the state.
 */
export function expertChoiceBackward(
  model: Model,
  { done, router, gradOut, gradients, gradShared }: {
    done: readonly ExpertChoiceStep[];
    router: ExpertChoiceConfig;
    gradOut: Float64Array;
    gradients: Weights;
    gradShared: SharedKeyValues | null;
  },
): Float64Array {
  const width = model.config.hiddenSize;
  const { gating, auxiliary, auxiliaryCoefficient: coefficient, zCoefficient } = router;
  let gradient = gradOut;
  for (const step of done.toReversed()) {
    const { router: main, auxiliaryRouter, labels, chosen, indices, weights, block } = step;
    const { x, logits } = main;
    const { gradX, gradZ, gradWeights } = scatterRowsBackward(
      { gradOut: gradient, x, z: block.out, indices, weights },
      { gating, width },
    );
    const gradPacked = stackBackward(model, { stack: block, gradOut: gradZ, gradients, gradShared });
    addScaled(gradX, {
      source: gatherRowsBackward({ gradOut: gradPacked, indices }, { rows: x.length / width, width }),
    });
    const gradLogits = gateBackward({ gradWeights, logits, chosen }, router);
    const ofMain = { coefficient: auxiliary === "loss" ? coefficient : 0, zCoefficient };
    addScaled(gradLogits, { source: binaryCrossEntropyBackward({ logits, labels }, ofMain) });
    addScaled(gradX, { source: routerBackward(model, { tape: main, gradLogits, gradients }) });
    if (auxiliaryRouter) {
      const gradLogits = binaryCrossEntropyBackward({ logits: auxiliaryRouter.logits, labels }, {
        coefficient,
        zCoefficient: 0,
      });
      routerBackward(model, { tape: auxiliaryRouter, gradLogits, gradients });
    }
    gradient = gradX;
  }
  return gradient;
}
