/**
 * Runs a whole text through a model, window after window: losses by window and by recursion depth, and how often a
 * router's own sign would have decided as top-k did.
 */
import type { GpuDevice } from "../gpu/device.ts";
import type { Allocator } from "../gpu/memory.ts";
import { readTensors } from "../gpu/readback.ts";
import type { TensorData } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { Batch } from "./text/dataset.ts";
import { packingTensors, rowDepths, stepRows } from "./depths.ts";
import { Evaluator } from "./evaluate.ts";
import type { ModelWeights } from "./model_weights.ts";
import type { Routing } from "./selection.ts";
import { checkFinite, runWindows, type WindowRunner, type WindowShape, windowSums } from "./text_windows.ts";
import { allocateWorkspace, type Workspace } from "./workspace.ts";

/** Predictions that belong together: how many, and the sum of their cross-entropies in nats. */
export interface LossSum {
  readonly tokens: number;
  readonly loss: number;
}

/** Decisions of one step of expert choice by top-k. */
export interface StepDecisions {
  readonly candidates: number;
  /** Candidates kept with a positive deciding logit, or dropped with another. */
  readonly agreed: number;
}

/** What one batch of windows gave. */
export interface EvaluatedBatch {
  readonly windows: readonly LossSum[];
  /** By recursion steps that the predicting token ran, 0 first; null for a vanilla model. */
  readonly depths: readonly LossSum[] | null;
  /** By recursion step; null unless a trained expert choice routed by top-k. */
  readonly decisions: readonly StepDecisions[] | null;
}

/** A text and how to run it. */
export interface TextEvaluation {
  readonly model: { readonly config: ModelConfig; readonly weights: ModelWeights };
  /** At least two tokens. */
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly routing: Routing;
  readonly shape: WindowShape;
}

/** Whether top-k and causal routing can differ at all: any rule but expert choice looks at the past alone. */
export function routingsDiffer({ router }: ModelConfig): boolean {
  return router?.kind === "expert_choice";
}

/**
 * Every token of the text but the first is predicted once, from the tokens of its window before it.
 *
 * @throws CheckpointError for a loss that is not finite; ConfigError for windows longer than the model's positions;
 * MemoryError when a batch does not fit.
 */
export function evaluateText(
  device: GpuDevice,
  { model: { config, weights }, tokens, routing, shape }: TextEvaluation,
): AsyncGenerator<EvaluatedBatch> {
  function open(allocator: Allocator, lengths: readonly number[]): WindowRunner<EvaluatedBatch> {
    const workspace = allocateWorkspace(allocator, {
      config,
      shape: { lengths, routing, backward: false, head: "losses" },
    });
    const evaluator = new Evaluator(device, { config, weights, workspace });
    function run(batch: Batch): Promise<EvaluatedBatch> {
      evaluator.submit(batch);
      return readBatch(device, { config, workspace });
    }
    return { run, destroy: () => evaluator.destroy() };
  }
  return runWindows(device, { tokens, shape, open });
}

async function readBatch(
  device: GpuDevice,
  { config, workspace }: { config: ModelConfig; workspace: Workspace },
): Promise<EvaluatedBatch> {
  const { tokenLosses, agreements, shape } = workspace;
  const [losses, agreed, ...packings] = await readTensors(device, [
    tokenLosses,
    agreements,
    ...packingTensors(workspace),
  ]) as [Float32Array, Float32Array, ...TensorData[]];
  checkFinite(losses, { action: "evaluate", subject: "the loss" });
  const steps = stepRows(packings);
  const depths = rowDepths(config, { rows: losses.length, steps });
  const isDecided = config.router?.kind === "expert_choice" && shape.routing === "top-k" &&
    !config.router.random;
  return {
    windows: windowSums(losses, shape).map((loss, w) => ({ tokens: shape.lengths[w]!, loss })),
    depths: depths && depthSums(losses, { depths, numRecursions: config.recursion!.numRecursions }),
    decisions: isDecided
      ? steps.map((_, r) => ({ candidates: steps[r - 1]?.length ?? losses.length, agreed: agreed[r]! }))
      : null,
  };
}

function depthSums(
  losses: Float32Array,
  { depths, numRecursions }: { depths: Uint32Array; numRecursions: number },
): LossSum[] {
  const sums = Array.from({ length: numRecursions + 1 }, () => ({ tokens: 0, loss: 0 }));
  depths.forEach((depth, row) => {
    sums[depth]!.tokens++;
    sums[depth]!.loss += losses[row]!;
  });
  return sums;
}
