/**
 * The end of the model: norm -> logits -> losses, and back.
 *
 * Losses need the logits of few rows at a time. For each chunk of the rows (head_chunks.ts) one buffer holds the logits,
 * then in training their gradient, which is used up at once: it makes the gradient of the chunk's normed states and is
 * added to that of the head's weight. So nothing is computed twice. Chunks of the vocabulary instead would need the
 * head's product a second time, since no logit has its gradient before all logits of its row are known.
 */
import type { Commands } from "../gpu/commands.ts";
import { crossEntropy } from "../gpu/kernels/cross_entropy.ts";
import { gatherRows } from "../gpu/kernels/gather_rows.ts";
import { linear, linearBackwardInput, linearBackwardWeight, normLinear } from "../gpu/kernels/linear.ts";
import { rmsNorm, rmsNormBackward } from "../gpu/kernels/rms_norm.ts";
import { sum } from "../gpu/kernels/sum.ts";
import { viewRows } from "../gpu/packed_matrix.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { HeadChunk } from "./head_chunks.ts";
import type { ParameterViews } from "./parameter_layout.ts";
import { LOSS_SLOTS, type Pass } from "./workspace.ts";

/**
 * Records the last layer's output -> logits of all rows that have any, at once.
 *
 * @throws TypeError for a workspace that takes them in chunks.
 */
export function headLogits(
  commands: Commands,
  { config, weights, workspace }: Pass,
  { state }: { state: Tensor },
): void {
  const { layers: { backward }, headPacking, headState, normed, rrms, logits } = workspace;
  commands.mark("head");
  if (headState) gatherRows(commands, { x: state, packing: headPacking, out: headState });
  const { rows } = headPacking;
  const x = headState ?? state;
  const tensors = { x, norm: weights.norm, weight: weights.head, out: logits, normed, rrms };
  normLinear(commands, tensors, { rows, eps: config.rmsNormEps, keeps: backward });
}

/** Records the last layer's output -> logits of one chunk of the rows; the first chunk's come first. */
export function chunkLogits(
  commands: Commands,
  pass: Pass,
  { state, chunk: { first, rows } }: { state: Tensor; chunk: HeadChunk },
): void {
  const { config, weights, workspace: { headChunks, headPacking, normed, rrms, logits } } = pass;
  if (headChunks.length === 1) {
    headLogits(commands, pass, { state });
    return;
  }
  const { rows: all } = headPacking;
  commands.mark("head");
  if (first === 0) {
    const tensors = { x: state, weight: weights.norm, out: normed, rrms };
    rmsNorm(commands, tensors, { rows: all, eps: config.rmsNormEps });
  }
  const x = viewRows(normed, { start: first, count: rows.maximum });
  linear(commands, { x, weight: weights.head, out: logits }, { rows, partOf: all.maximum });
}

/** Records the cross-entropy of each row of a chunk; with a `gradientScale` the logits turn into their gradient. */
export function chunkLosses(
  commands: Commands,
  { config: { vocabSize }, workspace: { logits, targets, tokenLosses } }: Pass,
  { chunk, gradientScale }: { chunk: HeadChunk; gradientScale: number | null },
): void {
  commands.mark("losses");
  crossEntropy(commands, { logits, targets, losses: tokenLosses }, { ...chunk, vocabSize, gradientScale });
}

/** Records what the gradient of a chunk's logits, in their place, makes of them: those of the normed states and weight. */
function chunkBackward(
  commands: Commands,
  { weights, workspace: { headPacking, logits: gradOut, normed, layers: { scratch } } }: Pass,
  { chunk: { first, rows }, gradients }: { chunk: HeadChunk; gradients: ParameterViews },
): void {
  const ofChunk = (tensor: Tensor): Tensor => viewRows(tensor, { start: first, count: rows.maximum });
  commands.mark("head, backward");
  linearBackwardInput(commands, { gradOut, weight: weights.head, gradX: ofChunk(scratch.gradNormed) }, {
    rows,
    partOf: headPacking.rows.maximum,
  });
  linearBackwardWeight(commands, { gradOut, x: ofChunk(normed), gradWeight: gradients.head }, { rows });
}

/**
 * Records the last layer's output -> losses of all rows, and their sum times `scale`, added to what is there.
 *
 * @param state What the last layer made.
 * @param gradients Given in training: those of the head and its norm are added to, and `workspace.gradState` gets the
 * gradient of `state`.
 * @param allLogits (rows, Vp): gets the logits of all rows, if given.
 */
export function headLosses(
  commands: Commands,
  pass: Pass,
  { state, scale, gradients, allLogits = null }: {
    state: Tensor;
    scale: number;
    gradients: ParameterViews | null;
    allLogits?: Tensor | null;
  },
): void {
  const { weights, workspace } = pass;
  const { headPacking: { rows }, headChunks, logits, tokenLosses, losses, rrms, gradState } = workspace;
  const gradientScale = gradients ? scale : null;
  for (const chunk of headChunks) {
    chunkLogits(commands, pass, { state, chunk });
    if (allLogits) {
      const count = chunk.rows.maximum;
      commands.copy(viewRows(logits, { count }), viewRows(allLogits, { start: chunk.first, count }));
    }
    chunkLosses(commands, pass, { chunk, gradientScale });
    if (gradients) chunkBackward(commands, pass, { chunk, gradients });
  }
  commands.mark("losses");
  sum(commands, { values: tokenLosses, out: losses }, { rows, slot: LOSS_SLOTS.ce, scale, accumulate: true });
  if (!gradients) return;
  commands.mark("head, backward");
  rmsNormBackward(commands, {
    x: state,
    weight: weights.norm,
    rrms,
    gradOut: workspace.layers.scratch.gradNormed,
    gradX: gradState,
    gradWeight: gradients.norm,
  }, { rows, accumulate: false });
}
