/**
 * The model on one page: embedding -> first layers -> recursion -> last layer -> norm -> logits -> losses, and back.
 *
 * Vanilla models have only "first" layers; the recursive baseline repeats its block on every token; a model with a
 * router is Mixture-of-Recursions (recursion.ts). Everything here records work; `submit` runs it.
 */
import type { Commands } from "../gpu/commands.ts";
import { crossEntropy } from "../gpu/kernels/cross_entropy.ts";
import { embedding, embeddingBackward } from "../gpu/kernels/embedding.ts";
import { gatherRows } from "../gpu/kernels/gather_rows.ts";
import { linear, linearBackwardInput, linearBackwardWeight } from "../gpu/kernels/linear.ts";
import { rmsNorm, rmsNormBackward } from "../gpu/kernels/rms_norm.ts";
import { sum } from "../gpu/kernels/sum.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { ExpertChoiceConfig, ModelConfig } from "./config.ts";
import { layerRoles, type ParameterViews } from "./parameters.ts";
import {
  type LayerRun,
  layersBackward,
  layersForward,
  recursionBackward,
  type RecursionContext,
  recursionForward,
  type RecursionStep,
} from "./recursion.ts";
import { LOSS_SLOTS, type Workspace } from "./workspace.ts";

/** A model's weights together with the buffers of a pass. */
export interface Pass {
  readonly config: ModelConfig;
  readonly weights: ParameterViews;
  readonly workspace: Workspace;
}

/** The layers around and inside the recursion, as runs over the workspace's activations. */
interface Stages {
  readonly first: LayerRun;
  readonly blocks: readonly LayerRun[];
  readonly last: LayerRun;
}

function stages({ config, weights, workspace }: Pass): Stages {
  const roles = layerRoles(config);
  const views = (layers: readonly number[]): LayerRun["weights"] => layers.map((u) => weights.layers[u]!);
  return {
    first: { weights: views(roles.first), activations: workspace.first },
    blocks: workspace.steps.map(({ layers }) => ({ weights: views(roles.block), activations: layers })),
    last: { weights: views(roles.last), activations: workspace.last },
  };
}

function recursionSteps({ workspace }: Pass, blocks: readonly LayerRun[]): RecursionStep[] {
  return workspace.selections.map((selection, r) => {
    const { gathered, stateAfter } = workspace.steps[r]!;
    return { selection, gathered: gathered!, stateAfter: stateAfter!, block: blocks[r]! };
  });
}

function recursionContext({ config, workspace }: Pass): RecursionContext {
  return {
    layers: workspace.layers,
    router: config.router as ExpertChoiceConfig,
    recursion: config.recursion!,
    sequences: workspace.shape.sequences,
    seed: workspace.seed,
  };
}

/**
 * Records ids -> logits. The last layer's output, (B * T, C), is returned.
 *
 * @param lossScale Records the routers' losses and their gradients, times this; null leaves them out.
 */
export function transformerForward(
  commands: Commands,
  pass: Pass,
  { lossScale }: { lossScale: number | null },
): Tensor {
  const { config, weights, workspace } = pass;
  const { layers: context, full, ids, embedded } = workspace;
  const { first, blocks, last } = stages(pass);

  embedding(commands, { ids, weight: weights.embedding, out: embedded }, { rows: full.rows });
  let state = layersForward(commands, { x: embedded, run: first }, { context, packing: full });
  if (config.router) {
    const steps = recursionSteps(pass, blocks);
    const routing = { context: recursionContext(pass), lossScale };
    state = recursionForward(commands, { state, steps, routers: weights.routers }, routing);
  } else {
    for (const run of blocks) state = layersForward(commands, { x: state, run }, { context, packing: full });
  }
  state = layersForward(commands, { x: state, run: last }, { context, packing: full });

  const { headPacking, headState, normed, rrms, logits } = workspace;
  if (headState) gatherRows(commands, { x: state, packing: headPacking, out: headState });
  const { rows } = headPacking;
  const x = headState ?? state;
  rmsNorm(commands, { x, weight: weights.norm, out: normed, rrms }, { rows, eps: config.rmsNormEps });
  linear(commands, { x: normed, weight: weights.head, out: logits }, { rows });
  return state;
}

/**
 * Records the loss terms into `workspace.losses`, added to what is there: mean cross-entropy, and the routers' losses
 * summed over steps. With a gradient scale the logits turn into their gradient.
 */
export function transformerLosses(
  commands: Commands,
  { config, workspace }: Pass,
  { lossScale, gradient }: { lossScale: number; gradient: boolean },
): void {
  const { logits, targets, tokenLosses, losses, headPacking: { rows }, selections } = workspace;
  const scale = lossScale / rows.maximum;
  const gradientScale = gradient ? scale : null;
  crossEntropy(commands, { logits, targets, losses: tokenLosses }, {
    rows,
    vocabSize: config.vocabSize,
    gradientScale,
  });
  sum(commands, { values: tokenLosses, out: losses }, { rows, slot: LOSS_SLOTS.ce, scale, accumulate: true });
  for (const { candidates, auxiliaryLosses, squaredLogits } of selections) {
    const settings = { rows: candidates.rows, scale: lossScale / candidates.rows.maximum, accumulate: true };
    sum(commands, { values: auxiliaryLosses, out: losses }, { ...settings, slot: LOSS_SLOTS.auxiliary });
    sum(commands, { values: squaredLogits, out: losses }, { ...settings, slot: LOSS_SLOTS.z });
  }
}

/**
 * Records the backward pass. The workspace's logits hold their gradient; gradients of weights are added to, so those
 * of a shared block sum over its recursions.
 *
 * @param finalState What `transformerForward` returned.
 */
export function transformerBackward(
  commands: Commands,
  pass: Pass,
  { gradients, finalState }: { gradients: ParameterViews; finalState: Tensor },
): void {
  const { weights, workspace } = pass;
  const { layers: context, full, ids, embedded, gradState, gradPacked, selections } = workspace;
  const { first, blocks, last } = stages(pass);
  const { rows } = full;
  const gradViews = stages({ ...pass, weights: gradients });

  const gradNormed = context.scratch.branch;
  linearBackwardInput(commands, { gradOut: workspace.logits, weight: weights.head, gradX: gradNormed }, {
    rows,
  });
  linearBackwardWeight(commands, {
    gradOut: workspace.logits,
    x: workspace.normed,
    gradWeight: gradients.head,
  }, {
    rows,
  });
  rmsNormBackward(commands, {
    x: finalState,
    weight: weights.norm,
    rrms: workspace.rrms,
    gradOut: gradNormed,
    gradX: gradState,
    gradWeight: gradients.norm,
  }, { rows, accumulate: false });

  const blockOutput = workspace.steps.at(-1)?.layers.at(-1)?.out;
  const beforeRecursion = first.activations.at(-1)?.out ?? embedded;
  const afterRecursion = workspace.steps.at(-1)?.stateAfter ?? blockOutput ?? beforeRecursion;
  layersBackward(commands, {
    x: afterRecursion,
    run: last,
    gradients: gradViews.last.weights,
    gradState,
  }, { context, packing: full });
  const blockGradients = gradViews.blocks[0]?.weights ?? [];
  if (selections.length > 0) {
    recursionBackward(commands, {
      state: beforeRecursion,
      steps: recursionSteps(pass, blocks),
      routers: weights.routers,
      gradRouters: gradients.routers,
      gradients: blockGradients,
      gradState,
      gradPacked,
    }, { context: recursionContext(pass) });
  } else {
    for (let r = blocks.length - 1; r >= 0; r--) {
      const x = r > 0 ? blocks[r - 1]!.activations.at(-1)!.out : beforeRecursion;
      layersBackward(commands, { x, run: blocks[r]!, gradients: blockGradients, gradState }, {
        context,
        packing: full,
      });
    }
  }
  layersBackward(commands, { x: embedded, run: first, gradients: gradViews.first.weights, gradState }, {
    context,
    packing: full,
  });
  const { tokenOrder: order, tokenStarts: starts } = workspace;
  embeddingBackward(commands, { ids, order, starts, gradOut: gradState, gradWeight: gradients.embedding }, {
    rows,
  });
}
