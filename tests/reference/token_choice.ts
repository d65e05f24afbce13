/**
 * Token-choice recursion (Mixture-of-Recursions, arXiv 2507.10524): one router gives each token its depth
 * before the first step, step r runs the block on the tokens of depth r and more, and the last output of a
 * token is gated into the state that it began with.
 *
 * As in the authors' released code, outputs before the last are not gated: out = x + g * Block^depth(x).
 */
import type { TokenChoiceConfig } from "../../model/config.ts";
import { type DepthLoad, depthLoad } from "./depth_balance.ts";
import { type DepthChoice, depthChoice, depthChoiceBackward } from "./depth_choice.ts";
import { gatherRows, gatherRowsBackward } from "./gather_rows.ts";
import { packQueries, packRows } from "./packing.ts";
import { routerBackward, routerForward, type RouterTape } from "./router.ts";
import { addScaled } from "./rows.ts";
import { scatterRows, scatterRowsBackward } from "./scatter_rows.ts";
import type { SharedKeyValues } from "./self_attention.ts";
import { stackBackward, stackForward, type StackTape } from "./stack.ts";
import { type Model, routerBias, weightOf, type Weights } from "./weights.ts";

/** Block outputs take the place of the chosen rows' states from step to step. */
const betweenSteps = "replace";

/** One recursion step as it ran; rows are indices into the state of B * T rows. */
export interface TokenChoiceStep {
  /** State of every token before the step, (B * T, C): of those that left, their last output. */
  readonly x: Float64Array;
  /** Rows of the tokens that run the step, ascending (k), and their number in each sequence (B). */
  readonly indices: Int32Array;
  readonly lengths: Int32Array;
  /** The block on these rows. */
  readonly block: StackTape;
}

/** What a token-choice recursion computed. */
export interface TokenChoiceTape {
  /** Scores of all B * T rows for N depths; its x is the recursion's input. */
  readonly router: RouterTape;
  readonly choice: DepthChoice;
  readonly balance: DepthLoad;
  readonly steps: readonly TokenChoiceStep[];
  /** Last output of every token, Block^depth(x); (B * T, C). */
  readonly z: Float64Array;
  /** State after the recursion, (B * T, C). */
  readonly out: Float64Array;
}

/** Rows of the tokens that run step r, from 0, and their number in each sequence. */
function activeRows(
  depths: Int32Array,
  { r, sequences }: { r: number; sequences: number },
): { indices: Int32Array; lengths: Int32Array } {
  const tokens = depths.length / sequences;
  const lengths = new Int32Array(sequences);
  const indices = Int32Array.from(depths.keys().filter((row) => depths[row]! > r));
  for (const row of indices) lengths[Math.floor(row / tokens)]!++;
  return { indices, lengths };
}

/** Runs the recursion on x (B * T, C), block layers given by their unique indices. */
export function tokenChoiceForward(
  model: Model,
  { x, layers, router: settings, sequences, shared }: {
    x: Float64Array;
    layers: readonly number[];
    router: TokenChoiceConfig;
    sequences: number;
    shared: SharedKeyValues | null;
  },
): TokenChoiceTape {
  const width = model.config.hiddenSize;
  const recursions = model.config.recursion!.numRecursions;
  const rows = x.length / width;
  const tokens = rows / sequences;
  const all = Int32Array.from({ length: rows }, (_, row) => row);
  const router = routerForward(model, { prefix: "model.router", x, candidates: all });
  const bias = settings.balancing === "loss_free"
    ? weightOf(model, routerBias)
    : new Float64Array(recursions);
  const choice = depthChoice({ logits: router.logits, bias }, { ...settings, recursions });
  const balance = depthLoad(choice, { recursions });
  const steps: TokenChoiceStep[] = [];
  let z = x;
  for (let r = 0; r < recursions; r++) {
    const { indices, lengths } = activeRows(choice.depths, { r, sequences });
    const packing = shared ? packQueries(indices, { tokens }) : packRows(indices, { tokens, lengths });
    const packed = gatherRows({ x: z, indices }, { width });
    const block = stackForward(model, { x: packed, layers, packing, shared });
    steps.push({ x: z, indices, lengths, block });
    const weights = new Float64Array(indices.length);
    z = scatterRows({ x: z, z: block.out, indices, weights }, { gating: betweenSteps, width });
  }
  const { gating } = settings;
  const out = scatterRows({ x, z, indices: all, weights: choice.gates }, { gating, width });
  return { router, choice, balance, steps, z, out };
}

/**
 * Gradient of the recursion's input, (B * T, C); adds the gradients of the block's layers and of the router to
 * `gradients`.
 *
 * The balancing loss and the z-loss enter here with their coefficients. Depths are not differentiated.
 */
export function tokenChoiceBackward(
  model: Model,
  { tape: { router, choice, balance, steps, z }, settings, gradOut, gradients, gradShared }: {
    tape: TokenChoiceTape;
    settings: TokenChoiceConfig;
    gradOut: Float64Array;
    gradients: Weights;
    gradShared: SharedKeyValues | null;
  },
): Float64Array {
  const width = model.config.hiddenSize;
  const { x, logits, candidates: all } = router;
  const last = scatterRowsBackward(
    { gradOut, x, z, indices: all, weights: choice.gates },
    { gating: settings.gating, width },
  );
  let gradState = last.gradZ;
  for (const { x, indices, block } of steps.toReversed()) {
    const weights = new Float64Array(indices.length);
    const { gradX, gradZ } = scatterRowsBackward(
      { gradOut: gradState, x, z: block.out, indices, weights },
      { gating: betweenSteps, width },
    );
    const gradPacked = stackBackward(model, { stack: block, gradOut: gradZ, gradients, gradShared });
    addScaled(gradX, {
      source: gatherRowsBackward({ gradOut: gradPacked, indices }, { rows: all.length, width }),
    });
    gradState = gradX;
  }
  const gradLogits = depthChoiceBackward(
    { gradGates: last.gradWeights, logits, depths: choice.depths, load: balance.load },
    {
      ...settings,
      recursions: steps.length,
      balancingCoefficient: settings.balancing === "loss" ? settings.balancingCoefficient : 0,
    },
  );
  const { gradX } = last;
  addScaled(gradX, { source: gradState });
  addScaled(gradX, { source: routerBackward(model, { tape: router, gradLogits, gradients }) });
  return gradX;
}
