/** A training run of the smallest preset in this process, on a few sentences. */
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { presetConfig } from "../../model/presets.ts";
import { type Dataset, splitTokens } from "../../model/text/dataset.ts";
import { byteTokenizer } from "../../model/text/tokenizer.ts";
import type { TrainOptions } from "../../model/train.ts";
import { NO_WARMUP } from "../../model/training.ts";

const SENTENCE = "The quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. ";

/** So many sentences as bytes; the last fifth is held out. */
export function sentences(count: number): Promise<Dataset> {
  const split = { validationFraction: 0.2, sequenceLength: 24, vocabSize: 257 };
  return splitTokens(byteTokenizer.encode(SENTENCE.repeat(count)), split);
}

/** Ten steps of two batches, evaluated at the fifth and the last. */
export const tinyTraining: Omit<TrainOptions, "folder"> = {
  config: presetConfig("tiny"),
  settings: {
    shape: { batchSize: 2, sequenceLength: 24, gradientAccumulation: 2 },
    schedule: { learningRate: 3e-3, steps: 10, warmupSteps: 2, decaySteps: 3 },
    optimizer: DEFAULT_OPTIMIZER,
    routerWarmup: NO_WARMUP,
    activationDtype: "f32",
    seed: 4,
    validationFraction: 0.2,
  },
  cadence: { evaluateEvery: 5, evaluationBatches: 2, saveEvery: 100, stopAfter: Infinity },
  dataset: await sentences(12),
  resume: false,
  init: null,
  recompute: false,
  tokenizer: "byte",
  flags: '{"steps": 10}',
  signal: new AbortController().signal,
};
