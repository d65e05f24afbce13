/** Freshly initialised models and batches of a short text, to train for some steps. */
import type { GpuDevice } from "../../gpu/device.ts";
import type { ExpertChoiceConfig, ModelConfig, TokenChoiceConfig } from "../../model/config.ts";
import type { ActivationDtype } from "../../model/layer_buffers.ts";
import { type Batch, splitTokens, trainingBatch } from "../../model/text/dataset.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { presetConfig } from "../../model/presets.ts";
import { byteTokenizer } from "../../model/text/tokenizer.ts";
import {
  allocateTraining,
  type RouterWarmup,
  type StepShape,
  type TrainingBuffers,
  TrainingPrograms,
} from "../../model/training.ts";
import { initializeWeights } from "../../model/weights.ts";
import { tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";

const preset = presetConfig("tiny");

/** The smallest preset, with changes of its default router or of itself. */
export function expertChoice(
  router: Partial<ExpertChoiceConfig> = {},
  changes: Partial<ModelConfig> = {},
): ModelConfig {
  return { ...preset, router: tinyRouter(router), ...changes };
}

/** The smallest preset by token choice, with changes of its default router or of itself. */
export function tokenChoice(
  router: Partial<TokenChoiceConfig> = {},
  changes: Partial<ModelConfig> = {},
): ModelConfig {
  return { ...preset, router: tinyTokenRouter(router), ...changes };
}

const text = "The quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. ";
const dataset = await splitTokens(byteTokenizer.encode(text.repeat(12)), {
  validationFraction: 0.2,
  sequenceLength: 24,
  vocabSize: byteTokenizer.vocabSize,
});

/** Two sequences of 24 tokens. */
export const stepShape: StepShape = { batchSize: 2, sequenceLength: 24, gradientAccumulation: 1 };

/** The batch of that number, of a shape's size. */
export function batchOf({ batchSize, sequenceLength }: StepShape, index = 0): Batch {
  return trainingBatch(dataset.training, { index, batchSize, sequenceLength, seed: 5 });
}

/** A freshly initialised model and its programs. */
export function startTraining(
  device: GpuDevice,
  { config, shape = stepShape, warmup, logitRows, ...kept }: {
    config: ModelConfig;
    shape?: StepShape;
    warmup?: RouterWarmup;
    logitRows?: number;
    recompute?: boolean;
    activationDtype?: ActivationDtype;
  },
): { buffers: TrainingBuffers; programs: TrainingPrograms } {
  const options = { config, shape, logitRows, ...kept, ...(warmup && { warmup }) };
  const buffers = allocateTraining(device, { ...options, evaluationSequences: 0 });
  const { layout, weights } = buffers;
  initializeWeights(device, { layout, weights, seed: 3 });
  return {
    buffers,
    programs: new TrainingPrograms(device, { ...options, buffers, settings: DEFAULT_OPTIMIZER }),
  };
}
