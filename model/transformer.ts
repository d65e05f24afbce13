/**
 * The model on one page: embedding -> first layers -> recursion -> last layer -> head (norm, logits, losses), and back.
 *
 * Vanilla models have only "first" layers; the recursive baseline repeats its block on every token; a model with a
 * router is Mixture-of-Recursions (recursion.ts). The head is head.ts. Everything here records work; `submit` runs it.
 */
import type { Commands } from "../gpu/commands.ts";
import { embedding, embeddingBackward } from "../gpu/kernels/embedding.ts";
import { sum } from "../gpu/kernels/sum.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type LayerRun, layersBackward, layersForward } from "./block.ts";
import type { ModelConfig } from "./config.ts";
import { selectLosses } from "./expert_choice.ts";
import { headLosses } from "./head.ts";
import { placeRows } from "./kv_cache.ts";
import type { LayerWeights } from "./model_weights.ts";
import type { ParameterViews } from "./parameter_layout.ts";
import { layerPlan } from "./parameters.ts";
import { type Recursion, recursionBackward, recursionForward } from "./recursion.ts";
import { depthLosses } from "./token_choice.ts";
import { LOSS_SLOTS, type Pass } from "./workspace.ts";

/** The layers of a model in the order in which they run, each part with its weights (or their gradients). */
function layersOf<L extends LayerWeights>(
  config: ModelConfig,
  layers: readonly L[],
): { first: L[]; steps: L[][]; last: L[] } {
  const plan = layerPlan(config);
  const views = (unique: readonly number[]): L[] => unique.map((u) => layers[u]!);
  return { first: views(plan.first), steps: plan.steps.map(views), last: views(plan.last) };
}

/** The parts of a pass: layers before the recursion, the recursion, layers after it. */
function partsOf({ config, weights, workspace }: Pass): {
  first: LayerRun;
  recursion: Recursion;
  last: LayerRun;
} {
  const { first, steps, last } = layersOf(config, weights.layers);
  const { shape, seed, layers, decisions, cache } = workspace;
  return {
    first: { ...workspace.first, weights: first },
    recursion: {
      config,
      weights,
      layers,
      decisions,
      cache,
      expert: { config, shape, seed },
      steps: workspace.steps.map(({ packing, gathered, stateAfter, ...buffers }, r) => ({
        packing,
        gathered,
        stateAfter,
        block: { ...buffers, weights: steps[r]! },
      })),
    },
    last: { ...workspace.last, weights: last },
  };
}

/** Records ids -> the last layer's output, (B * T, C), which is returned: what the head takes. */
export function transformerForward(commands: Commands, pass: Pass): Tensor {
  const { weights, workspace } = pass;
  const { layers: context, full, ids, embedded, cache } = workspace;
  const { first, recursion, last } = partsOf(pass);
  const everyToken = { context, packing: full };

  commands.mark("embedding");
  embedding(commands, { ids, weight: weights.embedding, out: embedded }, { rows: full.rows });
  if (cache) placeRows(commands, cache, { packing: full });
  commands.mark("first layers");
  const before = layersForward(commands, { x: embedded, run: first }, everyToken);
  const after = recursionForward(commands, recursion, before);
  commands.mark("last layers");
  return layersForward(commands, { x: after, run: last }, everyToken);
}

/**
 * Records the loss terms into `workspace.losses`, added to what is there: mean cross-entropy, and the routers' losses
 * summed over steps. With `gradients` the head's backward pass is recorded with it, see `headLosses`.
 *
 * @param state What `transformerForward` returned.
 * @param allLogits (B * T, Vp): gets the logits of all rows, if given.
 */
export function transformerLosses(
  commands: Commands,
  pass: Pass,
  { state, lossScale, gradients, allLogits = null }: {
    state: Tensor;
    lossScale: number;
    gradients: ParameterViews | null;
    allLogits?: Tensor | null;
  },
): void {
  const { config, workspace } = pass;
  const { losses, headPacking, decisions, shape } = workspace;
  headLosses(commands, pass, { state, scale: lossScale / headPacking.rows.maximum, gradients, allLogits });
  commands.mark("losses");
  if (decisions.kind === "token_choice") {
    depthLosses(commands, { decision: decisions.decision, losses }, {
      config,
      scale: lossScale,
      slots: LOSS_SLOTS,
    });
  }
  // Causal routing has no kept and dropped candidates that expert choice's losses could compare.
  if (decisions.kind !== "expert_choice" || shape.routing === "causal") return;
  for (const selection of decisions.selections) {
    selectLosses(commands, selection, { config, scale: lossScale });
    const { step, candidates, auxiliaryLosses, squaredLogits, agreements } = selection;
    const settings = { rows: candidates.rows, scale: lossScale, accumulate: true };
    const mean = { ...settings, mean: true };
    sum(commands, { values: auxiliaryLosses, out: losses }, { ...mean, slot: LOSS_SLOTS.auxiliary });
    sum(commands, { values: squaredLogits, out: losses }, { ...mean, slot: LOSS_SLOTS.z });
    sum(commands, { values: agreements, out: workspace.agreements }, { ...settings, slot: step });
  }
}

/**
 * Records the backward pass of everything before the head, after `transformerLosses` has left the gradient of the last
 * layer's output in `workspace.gradState`. Gradients of weights are added to, so those of a shared block sum over its
 * recursions.
 */
export function transformerBackward(
  commands: Commands,
  pass: Pass,
  { gradients, lossScale }: { gradients: ParameterViews; lossScale: number },
): void {
  const { config, workspace } = pass;
  const { layers: context, full, ids, embedded, gradState, gradPacked } = workspace;
  const { first, recursion, last } = partsOf(pass);
  const { rows } = full;
  const everyToken = { context, packing: full };
  const layerGradients = layersOf(config, gradients.layers);

  commands.mark("last layers, backward");
  const beforeRecursion = first.activations.at(-1)?.out ?? embedded;
  layersBackward(commands, {
    x: stateAfterRecursion(recursion) ?? beforeRecursion,
    run: last,
    gradients: layerGradients.last,
    gradState,
  }, everyToken);
  recursionBackward(commands, recursion, {
    state: beforeRecursion,
    lossScale,
    gradients,
    blocks: layerGradients.steps,
    gradState,
    gradPacked,
  });
  commands.mark("first layers, backward");
  layersBackward(
    commands,
    { x: embedded, run: first, gradients: layerGradients.first, gradState },
    everyToken,
  );
  commands.mark("embedding, backward");
  const { tokenOrder: order, tokenStarts: starts } = workspace;
  embeddingBackward(commands, { ids, order, starts, gradOut: gradState, gradWeight: gradients.embedding }, {
    rows,
  });
}

/** What `recursionForward` returned; null for a model without recursion. */
function stateAfterRecursion({ decisions, steps }: Recursion): Tensor | null {
  if (decisions.kind === "token_choice") return decisions.exit;
  const step = steps.at(-1);
  return step ? step.stateAfter ?? step.block.activations.at(-1)!.out : null;
}
