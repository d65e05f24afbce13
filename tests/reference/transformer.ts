/** The whole model in float64, composed of the ops of this folder: forward, loss terms and full backward. */
import type { ModelConfig } from "../../model/config.ts";
import { crossEntropyBackward } from "./cross_entropy.ts";
import { embedding, embeddingBackward } from "./embedding.ts";
import {
  expertChoiceBackward,
  expertChoiceForward,
  type ExpertChoiceStep,
  type Selection,
} from "./expert_choice.ts";
import { packRows } from "./packing.ts";
import { project, projectBackward } from "./projection.ts";
import { rmsNorm, rmsNormBackward } from "./rms_norm.ts";
import type { SharedKeyValues } from "./self_attention.ts";
import { layerPlan, unrolledLayers } from "./sharing.ts";
import { stackBackward, stackForward, type StackTape } from "./stack.ts";
import { tokenChoiceBackward, tokenChoiceForward, type TokenChoiceTape } from "./token_choice.ts";
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
  /** Recursion steps of expert choice; none in other schemes. */
  readonly steps: readonly ExpertChoiceStep[];
  /** The recursion of token choice; null in other schemes. */
  readonly tokenChoice: TokenChoiceTape | null;
  /** Layers after the recursion. */
  readonly after: StackTape;
  readonly norm: { readonly out: Float64Array; readonly rrms: Float64Array };
  /** (B, T, V). */
  readonly logits: Float64Array;
  /** Recursion steps run by each token, (B, T); 1 throughout for a vanilla Transformer. */
  readonly depths: Int32Array;
}

/**
 * Checks that this reference has the scheme of a configuration.
 *
 * @throws RangeError for a random router, and for shared keys and values that the first run of a layer does
 * not have for every token
 */
function checkScheme({ recursion, router, kvCache }: ModelConfig): void {
  function refuse(what: string): never {
    throw new RangeError(`The reference has no ${what}`);
  }
  if (router?.random) refuse("random router");
  if (kvCache !== "shared") return;
  if (recursion?.sharing.endsWith("sequence")) {
    refuse(`shared keys and values with sharing ${recursion.sharing}`);
  }
  if (router?.kind === "expert_choice" && router.capacities && router.capacities[0]! < 1) {
    refuse("shared keys and values where the first step does not run every token");
  }
}

/** Runs the model; without `selection` as in training (top-k). Schemes other than expert choice ignore it. */
export function forward(model: Model, { selection = { kind: "top_k" }, ...batch }: Batch & {
  readonly selection?: Selection;
}): ModelTape {
  const { config } = model;
  checkScheme(config);
  const { recursion, router, kvCache } = config;
  const { ids, sequences } = batch;
  const tokens = ids.length / sequences;
  const packing = packRows(Int32Array.from(ids, (_, row) => row), {
    tokens,
    lengths: new Int32Array(sequences).fill(tokens),
  });
  const plan = router ? layerPlan(recursion!) : { before: unrolledLayers(config), block: [], after: [] };
  const shared: SharedKeyValues | null = kvCache === "shared" ? new Map() : null;

  const x = embedding({ ids, weight: weightOf(model, "model.embed_tokens.weight") }, config);
  const before = stackForward(model, { x, layers: plan.before, packing, shared });
  const inner = { x: before.out, layers: plan.block, sequences, shared };
  const steps = router?.kind === "expert_choice"
    ? expertChoiceForward(model, { ...inner, router, selection })
    : [];
  const tokenChoice = router?.kind === "token_choice"
    ? tokenChoiceForward(model, { ...inner, router })
    : null;
  const state = tokenChoice?.out ?? steps.at(-1)?.out ?? before.out;
  const after = stackForward(model, { x: state, layers: plan.after, packing, shared });
  const norm = rmsNorm({ x: after.out, weight: weightOf(model, "model.norm.weight") }, {
    eps: config.rmsNormEps,
  });
  const logits = project(model, { name: headName(config), x: norm.out, inFeatures: config.hiddenSize });

  const depths = new Int32Array(ids.length).fill(router ? 0 : recursion?.numRecursions ?? 1);
  for (const { indices } of [...steps, ...tokenChoice?.steps ?? []]) {
    for (const row of indices) depths[row]!++;
  }
  return { batch, before, steps, tokenChoice, after, norm, logits, depths };
}

/**
 * Gradient of the total loss (`lossTerms`) for every trained weight, by name; a shared weight sums over all
 * its uses.
 *
 * @param targets (B, T), the token wanted at each position
 */
export function backward(
  model: Model,
  { tape, targets }: { tape: ModelTape; targets: ArrayLike<number> },
): Map<string, Float64Array> {
  const { config } = model;
  const { router } = config;
  const gradients = zeroGradients(model.weights);
  const gradShared: SharedKeyValues | null = config.kvCache === "shared" ? new Map() : null;

  const norm = rmsNormBackward({
    gradOut: projectBackward(model, {
      name: headName(config),
      gradOut: crossEntropyBackward({ logits: tape.logits, targets }, config),
      x: tape.norm.out,
      inFeatures: config.hiddenSize,
      gradients,
    }),
    x: tape.after.out,
    weight: weightOf(model, "model.norm.weight"),
    rrms: tape.norm.rrms,
  });
  addGradient(gradients, { name: "model.norm.weight", value: norm.gradWeight });

  const sinks = { gradients, gradShared };
  let gradient = stackBackward(model, { stack: tape.after, gradOut: norm.gradX, ...sinks });
  if (router?.kind === "expert_choice") {
    gradient = expertChoiceBackward(model, { done: tape.steps, router, gradOut: gradient, ...sinks });
  } else if (router?.kind === "token_choice") {
    const settings = { tape: tape.tokenChoice!, settings: router };
    gradient = tokenChoiceBackward(model, { ...settings, gradOut: gradient, ...sinks });
  }
  gradient = stackBackward(model, { stack: tape.before, gradOut: gradient, ...sinks });
  const gradEmbedding = embeddingBackward({ ids: tape.batch.ids, gradOut: gradient }, config);
  addGradient(gradients, { name: "model.embed_tokens.weight", value: gradEmbedding });
  return gradients;
}
