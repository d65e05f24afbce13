/**
 * Runs a whole text through a model, window after window: losses by window and by recursion depth, and how often a
 * router's own sign would have decided as top-k did.
 */
import { setImmediate } from "node:timers";
import type { GpuDevice } from "../gpu/device.ts";
import { BufferScope } from "../gpu/memory.ts";
import { readTensors } from "../gpu/readback.ts";
import type { TensorData } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { Batch } from "./dataset.ts";
import { packingTensors, rowDepths, stepRows } from "./depths.ts";
import { Evaluator } from "./evaluate.ts";
import type { ParameterViews } from "./parameter_layout.ts";
import { CheckpointError } from "./safetensors.ts";
import type { Routing } from "./selection.ts";
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

/** How a text is cut. */
export interface WindowShape {
  /** Windows run at once. */
  readonly batchSize: number;
  /** Tokens of a window; the last one may be shorter. */
  readonly sequenceLength: number;
}

/** A text and how to run it. */
export interface TextEvaluation {
  readonly model: { readonly config: ModelConfig; readonly weights: ParameterViews };
  /** At least two tokens. */
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly routing: Routing;
  readonly shape: WindowShape;
}

/** The text of one batch. */
interface WindowBatch extends Batch {
  /** Predictions of each window. */
  readonly lengths: readonly number[];
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
export async function* evaluateText(
  device: GpuDevice,
  { model: { config, weights }, tokens, routing, shape }: TextEvaluation,
): AsyncGenerator<EvaluatedBatch> {
  const scope = new BufferScope(device);
  let open: { workspace: Workspace; evaluator: Evaluator } | null = null;
  try {
    for (const batch of windowBatches(tokens, shape)) {
      // Only the last batch can be smaller than the others.
      if (open?.workspace.full.rows.maximum !== batch.ids.length) {
        open?.evaluator.destroy();
        scope.destroy();
        const { lengths } = batch;
        const workspace = allocateWorkspace(scope, {
          config,
          shape: { lengths, routing, backward: false, head: "all" },
        });
        open = { workspace, evaluator: new Evaluator(device, { config, weights, workspace }) };
      }
      open.evaluator.submit(batch);
      yield await readBatch(device, { config, workspace: open.workspace });
      // Reading back blocks the event loop: let signals and timers through.
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    open?.evaluator.destroy();
    scope.destroy();
  }
}

/** The text in order; the last batch may have fewer windows, the last of them fewer tokens. */
function* windowBatches(
  tokens: Uint32Array<ArrayBuffer>,
  { batchSize, sequenceLength }: WindowShape,
): Generator<WindowBatch> {
  const predictions = tokens.length - 1;
  for (let start = 0; start < predictions; start += batchSize * sequenceLength) {
    const end = Math.min(start + batchSize * sequenceLength, predictions);
    const lengths: number[] = [];
    for (let at = start; at < end; at += sequenceLength) lengths.push(Math.min(sequenceLength, end - at));
    yield { ids: tokens.subarray(start, end), targets: tokens.subarray(start + 1, end + 1), lengths };
  }
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
  const wrong = losses.find((loss) => !Number.isFinite(loss));
  if (wrong !== undefined) {
    throw new CheckpointError(
      `Cannot evaluate: the loss of a token is ${wrong}, wanted a finite number; ` +
        "the weights are not those of a working model, use an earlier checkpoint or train again",
    );
  }
  const steps = stepRows(packings);
  const depths = rowDepths(config, { rows: losses.length, steps });
  const isDecided = config.router?.kind === "expert_choice" && shape.routing === "top-k" &&
    !config.router.random;
  return {
    windows: windowSums(losses, shape),
    depths: depths && depthSums(losses, { depths, numRecursions: config.recursion!.numRecursions }),
    decisions: isDecided
      ? steps.map((_, r) => ({ candidates: steps[r - 1]?.length ?? losses.length, agreed: agreed[r]! }))
      : null,
  };
}

function windowSums(losses: Float32Array, { lengths }: { lengths: readonly number[] }): LossSum[] {
  let start = 0;
  return lengths.map((tokens) => {
    const part = losses.subarray(start, start += tokens);
    return { tokens, loss: Float64Array.from(part).reduce((sum, loss) => sum + loss, 0) };
  });
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
