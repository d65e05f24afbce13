/**
 * The training loop: an async generator of what happened, so that whoever drives it can print, log or stop.
 *
 * One step: learning rate -> batches -> forward, backward, update -> losses read -> report; then, when due, evaluate
 * and save. Batches and rates are pure functions of the step, so a resumed run repeats an uninterrupted one exactly.
 */
import { setImmediate } from "node:timers";
import type { GpuDevice } from "../gpu/device.ts";
import { createCheckpointFolder, loadTraining, saveTraining } from "./files/checkpoint.ts";
import { openCheckpoint } from "./files/checkpoint_source.ts";
import type { TokenizerSource } from "./text/tokenizer_source.ts";
import type { ModelConfig } from "./config.ts";
import { type Dataset, evaluationBatches, trainingBatch, windowCount } from "./text/dataset.ts";
import { type Evaluation, Evaluator } from "./evaluate.ts";
import type { ActivationDtype } from "./layer_buffers.ts";
import type { OptimizerSettings } from "./optimizer.ts";
import type { ParameterViews } from "./parameter_layout.ts";
import { learningRateAt, type Schedule } from "./schedule.ts";
import { initializeFrom, type InitMethod } from "./initialize_from.ts";
import { resumedStep, runJson } from "./resumed_run.ts";
import type { RouterHealth } from "./router_health.ts";
import {
  allocateTraining,
  type LossTerms,
  type RouterWarmup,
  type StepShape,
  type TrainingBuffers,
  TrainingPrograms,
} from "./training.ts";
import { initializeWeights } from "./weights.ts";

/** Everything that the weights of a run depend on, besides model and text. */
export interface TrainSettings {
  readonly shape: StepShape;
  readonly schedule: Schedule;
  readonly optimizer: OptimizerSettings;
  readonly routerWarmup: RouterWarmup;
  /** How layers store what their gradients need; f16 rounds it. */
  readonly activationDtype: ActivationDtype;
  readonly seed: number;
  /** Fraction of the text held out. */
  readonly validationFraction: number;
}

/** When to do what; changes nothing about the weights. */
export interface TrainCadence {
  /** Steps between evaluations; 0 is never. */
  readonly evaluateEvery: number;
  readonly evaluationBatches: number;
  /** Steps between checkpoints; one is always written at the end. */
  readonly saveEvery: number;
  /** End cleanly after this step of a longer run. */
  readonly stopAfter: number;
}

/** One optimizer step; `step` counts from 1. */
export interface StepReport {
  readonly kind: "step";
  readonly step: number;
  /** Tokens trained on since the run's first step. */
  readonly tokens: number;
  readonly losses: LossTerms;
  readonly learningRate: number;
  readonly gradNorm: number;
  /** Null without a router. */
  readonly health: RouterHealth | null;
  /** Held-out loss, when this step evaluated. */
  readonly evaluation: Evaluation | null;
}

export type TrainReport =
  | StepReport
  /** Before the first step; the weights change with every later one. */
  | { readonly kind: "started"; readonly step: number; readonly weights: ParameterViews }
  | { readonly kind: "saved"; readonly step: number }
  | { readonly kind: "interrupted"; readonly step: number };

/** Training that cannot go on: the loss or a gradient is not a finite number. */
export class TrainingError extends Error {
  override readonly name = "TrainingError";
}

/** What a run needs. */
export interface TrainOptions {
  readonly config: ModelConfig;
  readonly settings: TrainSettings;
  readonly cadence: TrainCadence;
  readonly dataset: Dataset;
  /** What the tokens are: a new run's folder gets the files. */
  readonly tokenizer: TokenizerSource;
  readonly folder: string;
  /** Continue the run in the folder instead of starting one. */
  readonly resume: boolean;
  /** A checkpoint whose weights a new run starts from, and how its layers map; null for random weights. */
  readonly init: { readonly folder: string; readonly method: InitMethod } | null;
  /**
   * Run layers again for their gradients instead of keeping what they left: changes memory and time alone, but with
   * activations in f16 also what is rounded, so that such a run cannot switch it.
   */
  readonly recompute: boolean;
  /** The caller's own settings, as JSON: kept with the run for whoever resumes it. */
  readonly flags: string;
  /** Stop, after saving, at the next step's end. */
  readonly signal: AbortSignal;
}

/** Sequences of an evaluation batch: the training batch's number, or what the held-out text gives. */
export function evaluationSequences(
  dataset: Dataset,
  { shape: { batchSize, sequenceLength } }: Pick<TrainSettings, "shape">,
): number {
  return dataset.validation.length === 0
    ? 0
    : Math.min(batchSize, windowCount(dataset.validation, sequenceLength));
}

/**
 * Trains, evaluates and saves.
 *
 * @throws ConfigError when a resumed run differs from the saved one; TrainingError for a loss that is not finite, with
 * the last checkpoint untouched; GpuError, MemoryError, CheckpointError.
 */
export async function* train(device: GpuDevice, options: TrainOptions): AsyncGenerator<TrainReport> {
  const { config, settings, cadence, dataset, folder, recompute, signal } = options;
  const { shape, schedule, activationDtype, seed } = settings;
  const sequences = cadence.evaluateEvery > 0 ? evaluationSequences(dataset, settings) : 0;
  const start = options.resume ? await resumedStep(options) : 0;
  const warmup = settings.routerWarmup;
  const buffers = allocateTraining(device, {
    config,
    shape,
    warmup,
    recompute,
    activationDtype,
    evaluationSequences: sequences,
  });
  const { layout, weights, optimizer } = buffers;
  if (options.resume) {
    await loadTraining(device, { folder, layout, weights, optimizer, step: start });
  } else {
    await startWeights(device, { buffers, options });
    await createCheckpointFolder(folder, { config, tokenizer: options.tokenizer });
  }
  yield { kind: "started", step: start, weights };
  const programs = new TrainingPrograms(device, {
    config,
    shape,
    buffers,
    settings: settings.optimizer,
    warmup,
  });
  const evaluate = evaluation(device, { buffers, options });
  const last = Math.min(schedule.steps, cadence.stopAfter);
  const batchTokens = shape.batchSize * shape.sequenceLength * shape.gradientAccumulation;
  let saved = start;

  async function save(step: number): Promise<TrainReport> {
    const state = { step, run: runJson(options), flags: options.flags };
    await saveTraining(device, { folder, layout, weights, optimizer, state });
    saved = step;
    return { kind: "saved", step };
  }

  for (let step = start; step < last; step++) {
    const batches = Array.from(
      { length: shape.gradientAccumulation },
      (_, i) =>
        trainingBatch(dataset.training, {
          index: step * shape.gradientAccumulation + i,
          batchSize: shape.batchSize,
          sequenceLength: shape.sequenceLength,
          seed,
        }),
    );
    const learningRate = learningRateAt(schedule, step);
    const { losses, gradNorm, health } = await programs.step(batches, { learningRate, step, seed });
    const done = step + 1;
    checkFinite({ losses, gradNorm, activationDtype, step: done, saved, folder });
    const isEvaluated = evaluate !== null && (done % cadence.evaluateEvery === 0 || done === last);
    yield {
      kind: "step",
      step: done,
      tokens: done * batchTokens,
      losses,
      learningRate,
      gradNorm,
      health,
      evaluation: isEvaluated ? await evaluate() : null,
    };
    if (done === last || done % cadence.saveEvery === 0 || signal.aborted) {
      // The loss above is that before the update: what is saved must be known to work.
      checkFinite({
        losses: await programs.losses(batches, { step, seed }),
        gradNorm,
        activationDtype,
        step: done,
        saved,
        folder,
      });
      yield await save(done);
    }
    if (signal.aborted) {
      yield { kind: "interrupted", step: done };
      return;
    }
    // Reading back blocks the event loop: let signals and timers through.
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function evaluation(
  device: GpuDevice,
  { buffers, options: { config, settings, cadence, dataset } }: {
    buffers: TrainingBuffers;
    options: TrainOptions;
  },
): (() => Promise<Evaluation>) | null {
  const { weights, evaluation: workspace } = buffers;
  if (!workspace) return null;
  const evaluator = new Evaluator(device, { config, weights, workspace });
  return () =>
    evaluator.run(evaluationBatches(dataset.validation, {
      batchSize: workspace.shape.lengths.length,
      sequenceLength: settings.shape.sequenceLength,
      maximumBatches: cadence.evaluationBatches,
    }));
}

function checkFinite(
  { losses, gradNorm, activationDtype, step, saved, folder }: {
    losses: LossTerms;
    gradNorm: number;
    activationDtype: ActivationDtype;
    step: number;
    saved: number;
    folder: string;
  },
): void {
  if (Number.isFinite(losses.total) && Number.isFinite(gradNorm)) return;
  const kept = saved > 0 ? `the checkpoint of step ${saved} in ${folder} is intact` : "nothing was saved";
  const format = activationDtype === "f16"
    ? ", or start without --activations f16, which holds numbers up to 65504 alone"
    : "";
  throw new TrainingError(
    `Training stopped at step ${step}: loss ${losses.total}, gradient norm ${gradNorm}, wanted finite numbers; ` +
      `${kept}; lower --learning-rate${format}`,
  );
}

/** Random weights, or those that another checkpoint gives. */
async function startWeights(
  device: GpuDevice,
  { buffers: { layout, weights }, options: { init, settings: { seed } } }: {
    buffers: TrainingBuffers;
    options: TrainOptions;
  },
): Promise<void> {
  if (init === null) {
    initializeWeights(device, { layout, weights, seed });
    return;
  }
  const source = await openCheckpoint(init.folder);
  await initializeFrom(device, { layout, weights, source, method: init.method, seed });
}
