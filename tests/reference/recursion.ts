/**
 * Expert-choice recursion (Mixture-of-Recursions, arXiv 2507.10524): every step lets its router choose among
 * the tokens that ran the step before, runs the block on the chosen ones alone, and writes the gated result
 * back.
 */
import type { ExpertChoiceConfig } from "../../model/config.ts";
import { binaryCrossEntropyBackward } from "./binary_cross_entropy.ts";
import { gate, gateBackward } from "./gate.ts";
import { gatherRows, gatherRowsBackward } from "./gather_rows.ts";
import type { Packing } from "./layer.ts";
import { routerScore, routerScoreBackward } from "./router_score.ts";
import { addScaled } from "./rows.ts";
import { scatterRows, scatterRowsBackward } from "./scatter_rows.ts";
import { packSpans } from "./spans.ts";
import { stackBackward, stackForward, type StackTape } from "./stack.ts";
import { type Kept, thresholdChoice } from "./threshold.ts";
import { topK } from "./top_k.ts";
import { addGradient, type Model, weightOf, type Weights } from "./weights.ts";

/**
 * How a step chooses: `top_k` as in training (k_r per sequence, not causal), `threshold` as in inference
 * (logit above it, causal).
 */
export type Selection = { readonly kind: "top_k" } | {
  readonly kind: "threshold";
  readonly threshold: number;
};

/** One recursion step as it ran; rows are indices into the state of B * T rows. */
export interface RecursionStep {
  /** State before and after the step, (B * T, C). */
  readonly x: Float64Array;
  readonly out: Float64Array;
  /** Rows the router looked at: those that ran the step before, ascending; (n). */
  readonly candidates: Int32Array;
  /** Raw logit of each candidate, (n). */
  readonly logits: Float64Array;
  /** 1 for a candidate that was chosen, else 0; (n). */
  readonly labels: Int32Array;
  /** Chosen candidates as indices into `candidates` (k), as rows (k); their number in each sequence (B). */
  readonly chosen: Int32Array;
  readonly indices: Int32Array;
  readonly lengths: Int32Array;
  /** Gate of each chosen row, w = alpha * f(logit); (k). */
  readonly weights: Float64Array;
  /** The block on the chosen rows. */
  readonly block: StackTape;
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
export function recursionForward(
  model: Model,
  { x, layers, router, steps, sequences, selection }: {
    x: Float64Array;
    layers: readonly number[];
    router: ExpertChoiceConfig;
    steps: number;
    sequences: number;
    selection: Selection;
  },
): RecursionStep[] {
  const width = model.config.hiddenSize;
  const tokens = x.length / width / sequences;
  const done: RecursionStep[] = [];
  let state = x;
  let candidates = Int32Array.from({ length: sequences * tokens }, (_, row) => row);
  let lengths: Int32Array = new Int32Array(sequences).fill(tokens);
  for (let r = 0; r < steps; r++) {
    const weight = weightOf(model, `model.routers.${r}.weight`);
    const logits = routerScore({ x: state, weight, indices: candidates }, router);
    const kept = choose(router, { selection, logits, lengths, r, steps, tokens });
    const { chosen } = kept;
    const labels = new Int32Array(candidates.length);
    for (const i of chosen) labels[i] = 1;
    const indices = chosen.map((i) => candidates[i]!);
    const weights = gate({ logits, chosen }, router);
    // The block sees the chosen rows alone, in their order, at their original positions.
    const packing: Packing = { positions: indices.map((row) => row % tokens), spans: kept.spans };
    const block = stackForward(model, { x: gatherRows({ x: state, indices }, { width }), layers, packing });
    const { gating } = router;
    const out = scatterRows({ x: state, z: block.out, indices, weights }, { gating, width });
    done.push({
      x: state,
      out,
      candidates,
      logits,
      labels,
      chosen,
      indices,
      lengths: kept.lengths,
      weights,
      block,
    });
    state = out;
    candidates = indices;
    lengths = kept.lengths;
  }
  return done;
}

/**
 * Gradient of the recursion's input, (B * T, C); adds the gradients of the block's layers and of the routers
 * to `gradients`.
 *
 * The auxiliary loss and the z-loss of each step enter here with their coefficients, since they depend on its
 * logits alone. The choice is not differentiated.
 */
export function recursionBackward(
  model: Model,
  { done, router, gradOut, gradients }: {
    done: readonly RecursionStep[];
    router: ExpertChoiceConfig;
    gradOut: Float64Array;
    gradients: Weights;
  },
): Float64Array {
  const width = model.config.hiddenSize;
  const coefficients = {
    coefficient: router.auxiliary === "loss" ? router.auxiliaryCoefficient : 0,
    zCoefficient: router.zCoefficient,
  };
  let gradient = gradOut;
  for (const [r, step] of Array.from(done.entries()).reverse()) {
    const { x, candidates, logits, labels, chosen, indices, weights, block } = step;
    const { gradX, gradZ, gradWeights } = scatterRowsBackward(
      { gradOut: gradient, x, z: block.out, indices, weights },
      { gating: router.gating, width },
    );
    const gradPacked = stackBackward(model, { stack: block, gradOut: gradZ, gradients });
    const gradGathered = gatherRowsBackward({ gradOut: gradPacked, indices }, {
      rows: x.length / width,
      width,
    });
    const gradLogits = gateBackward({ gradWeights, logits, chosen }, router);
    addScaled(gradLogits, { source: binaryCrossEntropyBackward({ logits, labels }, coefficients) });
    const name = `model.routers.${r}.weight`;
    const score = routerScoreBackward(
      { gradLogits, x, weight: weightOf(model, name), indices: candidates },
      router,
    );
    addGradient(gradients, { name, value: score.gradWeight });
    addScaled(gradX, { source: gradGathered });
    addScaled(gradX, { source: score.gradX });
    gradient = gradX;
  }
  return gradient;
}
