/** Whole training runs with activations stored as f32 and as f16, to compare their losses step by step. */
import type { GpuDevice } from "../../gpu/device.ts";
import { BufferScope } from "../../gpu/memory.ts";
import type { ModelConfig } from "../../model/config.ts";
import { ACTIVATION_DTYPES, type ActivationDtype } from "../../model/layer_buffers.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { presetConfig } from "../../model/presets.ts";
import { defaultSchedule, learningRateAt } from "../../model/schedule.ts";
import { readTokens, splitTokens, trainingBatch } from "../../model/text/dataset.ts";
import { byteTokenizer } from "../../model/text/tokenizer.ts";
import { allocateTraining, TrainingPrograms } from "../../model/training.ts";
import { initializeWeights } from "../../model/weights.ts";
import { corpus } from "./program.ts";

/** Models that are trained: without recursion, and with expert choice. */
export const ACTIVATION_RUNS = ["tiny-vanilla", "tiny-mor3"] as const;

/** Most that a step's loss may differ from that of the run in f32, of itself. */
export const LOSS_TOLERANCE = 0.01;

/** The demo's training, but of the smallest presets, and on the fixtures' text. */
const SHAPE = { batchSize: 4, sequenceLength: 128, gradientAccumulation: 1 };
const LEARNING_RATE = 1.5e-3;

/** A step's loss with both, and by how much that with f16 differs, as a part of the other. */
export interface LossPair {
  readonly f32: number;
  readonly f16: number;
  readonly deviation: number;
}

/** The losses of every step, from the same weights on the same batches. */
export async function activationRuns(
  device: GpuDevice,
  { preset, steps }: { preset: string; steps: number },
): Promise<LossPair[]> {
  const config = presetConfig(preset);
  const losses = [];
  for (const activationDtype of ACTIVATION_DTYPES) {
    losses.push(await lossesOf(device, { config, steps, activationDtype }));
  }
  const [f32, f16] = losses as [number[], number[]];
  return f32.map((loss, i) => ({ f32: loss, f16: f16[i]!, deviation: Math.abs(f16[i]! / loss - 1) }));
}

async function lossesOf(
  device: GpuDevice,
  { config, steps, activationDtype }: {
    config: ModelConfig;
    steps: number;
    activationDtype: ActivationDtype;
  },
): Promise<number[]> {
  const { batchSize, sequenceLength } = SHAPE;
  const tokens = await readTokens([corpus], { tokenizer: byteTokenizer, textField: "text" });
  const { training } = await splitTokens(tokens, {
    validationFraction: 0,
    sequenceLength,
    vocabSize: config.vocabSize,
  });
  const scope = new BufferScope(device);
  const buffers = allocateTraining(scope, { config, shape: SHAPE, activationDtype, evaluationSequences: 0 });
  initializeWeights(device, { ...buffers, seed: 3 });
  const settings = DEFAULT_OPTIMIZER;
  const programs = new TrainingPrograms(device, { config, shape: SHAPE, buffers, settings });
  const schedule = defaultSchedule({ learningRate: LEARNING_RATE, steps });
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const batch = trainingBatch(training, { index: step, batchSize, sequenceLength, seed: 5 });
    const learningRate = learningRateAt(schedule, step);
    losses.push((await programs.step([batch], { learningRate, step, seed: 3 })).losses.total);
  }
  scope.destroy();
  return losses;
}
