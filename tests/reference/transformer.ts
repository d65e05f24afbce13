/** The whole model in float64, composed of the ops of this folder: forward, loss terms and full backward. */
import type { ExpertChoiceConfig, ModelConfig } from "../../model/config.ts";
import { crossEntropyBackward } from "./cross_entropy.ts";
import { embedding, embeddingBackward } from "./embedding.ts";
import type { Packing } from "./layer.ts";
import { linear, linearInputGradient, linearWeightGradient } from "./linear.ts";
import { recursionBackward, recursionForward, type RecursionStep, type Selection } from "./recursion.ts";
import { rmsNorm, rmsNormBackward } from "./rms_norm.ts";
import { layerPlan, unrolledLayers } from "./sharing.ts";
import { packSpans } from "./spans.ts";
import { stackBackward, stackForward, type StackTape } from "./stack.ts";
import { addGradient, headName, type Model, weightOf, zeroGradients } from "./weights.ts";

/** B sequences of T tokens, ids (B, T). */
export interface Batch {
  readonly ids: ArrayLike<number>;
  readonly sequences: number;
}

/** Everything one forward computed. */
export interface ModelTape {
  readonly batch: Batch;
  /** Layers before the recursion; all layers, unrolled, where there is no router. */
  readonly before: StackTape;
  /** Recursion steps; none where there is no router. */
  readonly steps: readonly RecursionStep[];
  /** Layers after the recursion. */
  readonly after: StackTape;
  readonly norm: { readonly out: Float64Array; readonly rrms: Float64Array };
  /** (B, T, V). */
  readonly logits: Float64Array;
  /** Recursion steps run by each token, (B, T); 1 throughout for a vanilla Transformer. */
  readonly depths: Int32Array;
}

/**
 * The router of a configuration that this reference covers, or null.
 *
 * @throws RangeError for token choice, shared keys and values, other routers than the linear one, auxiliary
 * and random routers
 */
export function expertChoice({ router, kvCache }: ModelConfig): ExpertChoiceConfig | null {
  function refuse(what: string): never {
    throw new RangeError(`The reference has no ${what}`);
  }
  if (kvCache === "shared") refuse("shared keys and values");
  if (!router) return null;
  if (router.kind === "token_choice") refuse("token choice");
  if (router.architecture !== "linear") refuse(`${router.architecture} router`);
  if (router.auxiliary === "router") refuse("auxiliary router");
  if (router.random) refuse("random router");
  return router;
}

/** Runs the model; without `selection` as in training (top-k). Schemes without a router ignore it. */
export function forward(model: Model, { selection = { kind: "top_k" }, ...batch }: Batch & {
  readonly selection?: Selection;
}): ModelTape {
  const { config } = model;
  const { ids, sequences } = batch;
  const tokens = ids.length / sequences;
  const packing: Packing = {
    positions: Int32Array.from(ids, (_, row) => row % tokens),
    spans: packSpans(new Int32Array(sequences).fill(tokens)),
  };
  const router = expertChoice(config);
  const plan = router
    ? layerPlan(config.recursion!)
    : { before: unrolledLayers(config), block: [], after: [] };
  const x = embedding({ ids, weight: weightOf(model, "model.embed_tokens.weight") }, config);
  const before = stackForward(model, { x, layers: plan.before, packing });
  const depths = new Int32Array(ids.length).fill(config.recursion?.numRecursions ?? 1);
  let steps: RecursionStep[] = [];
  if (router) {
    const { numRecursions } = config.recursion!;
    const settings = { layers: plan.block, router, steps: numRecursions, sequences, selection };
    steps = recursionForward(model, { x: before.out, ...settings });
    depths.fill(0);
    for (const { indices } of steps) for (const row of indices) depths[row]!++;
  }
  const after = stackForward(model, { x: steps.at(-1)?.out ?? before.out, layers: plan.after, packing });
  const norm = rmsNorm({ x: after.out, weight: weightOf(model, "model.norm.weight") }, {
    eps: config.rmsNormEps,
  });
  const logits = linear({ x: norm.out, weight: weightOf(model, headName(config)) }, headSizes(config));
  return { batch, before, steps, after, norm, logits, depths };
}

function headSizes({ hiddenSize, vocabSize }: ModelConfig): { inFeatures: number; outFeatures: number } {
  return { inFeatures: hiddenSize, outFeatures: vocabSize };
}

/**
 * Gradient of the total loss (`lossTerms`) for every weight, by name; a shared weight sums over all its uses.
 *
 * @param targets (B, T), the token wanted at each position
 */
export function backward(
  model: Model,
  { tape, targets }: { tape: ModelTape; targets: ArrayLike<number> },
): Map<string, Float64Array> {
  const { config } = model;
  const gradients = zeroGradients(model.weights);
  const router = expertChoice(config);
  const head = headName(config);

  const gradLogits = crossEntropyBackward({ logits: tape.logits, targets }, config);
  const gradHead = linearWeightGradient({ gradOut: gradLogits, x: tape.norm.out }, headSizes(config));
  addGradient(gradients, { name: head, value: gradHead });
  const norm = rmsNormBackward({
    gradOut: linearInputGradient({ gradOut: gradLogits, weight: weightOf(model, head) }, headSizes(config)),
    x: tape.after.out,
    weight: weightOf(model, "model.norm.weight"),
    rrms: tape.norm.rrms,
  });
  addGradient(gradients, { name: "model.norm.weight", value: norm.gradWeight });

  let gradient = stackBackward(model, { stack: tape.after, gradOut: norm.gradX, gradients });
  if (router) gradient = recursionBackward(model, { done: tape.steps, router, gradOut: gradient, gradients });
  gradient = stackBackward(model, { stack: tape.before, gradOut: gradient, gradients });
  const gradEmbedding = embeddingBackward({ ids: tape.batch.ids, gradOut: gradient }, config);
  addGradient(gradients, { name: "model.embed_tokens.weight", value: gradEmbedding });
  return gradients;
}
