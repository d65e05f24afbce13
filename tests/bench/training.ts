/** Speed and memory of training steps. */
import type { GpuDevice } from "../../gpu/device.ts";
import { formatBytes } from "../../gpu/memory.ts";
import type { ModelConfig } from "../../model/config.ts";
import { flopsPerToken } from "../../model/flops.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { presetConfig } from "../../model/presets.ts";
import { uniform } from "../../model/random.ts";
import type { Batch } from "../../model/text/dataset.ts";
import {
  allocateTraining,
  type TrainingBuffers,
  trainingMemory,
  TrainingPrograms,
} from "../../model/training.ts";
import { initializeWeights } from "../../model/weights.ts";
import { median, print, range, REPEATS } from "./report.ts";

/** The peers' batch. */
export const SHAPE = { batchSize: 4, sequenceLength: 256, gradientAccumulation: 1 };

/** The peers' shape: width 256, 4 heads, FFN 1024, vocabulary 1024; the layers are given by each row. */
const WIDTHS = {
  vocabSize: 1024,
  hiddenSize: 256,
  intermediateSize: 1024,
  numAttentionHeads: 4,
  numKeyValueHeads: 4,
  headDim: 64,
  maxPositionEmbeddings: 256,
  initializerRange: 0.02,
  tokenizer: null,
} as const;

/** A model without recursion in the peers' widths. */
export function vanilla(layers: number): ModelConfig {
  return { ...presetConfig("tiny-vanilla"), ...WIDTHS, numHiddenLayers: layers };
}

/** Middle-cycle with a block of 4 and three recursions: 14 unrolled layers. */
function mixtureOfRecursions(): ModelConfig {
  const { recursion, router, ...rest } = presetConfig("tiny-mor3");
  return { ...rest, ...WIDTHS, numHiddenLayers: 14, recursion: { ...recursion!, blockLayers: 4 }, router };
}

/** One training step. */
export interface TimedStep {
  readonly ms: number;
  /** Before the update, in nats. */
  readonly loss: number;
  /** Before clipping. */
  readonly gradNorm: number;
}

/** A run that takes every step on the same batch. */
export interface Trainer {
  readonly buffers: TrainingBuffers;
  readonly batch: Batch;
  readonly step: () => Promise<TimedStep>;
  /** Bytes that the run took, and that were planned. */
  readonly planned: number;
  readonly taken: number;
}

/** Starts a run from weights and tokens drawn at random. @throws MemoryError */
export function trainer(
  device: GpuDevice,
  { config, learningRate = 1e-4 }: { config: ModelConfig; learningRate?: number },
): Trainer {
  const options = { config, shape: SHAPE, evaluationSequences: 0 };
  const before = device.memory.live;
  const buffers = allocateTraining(device, options);
  initializeWeights(device, { layout: buffers.layout, weights: buffers.weights, seed: 1 });
  const programs = new TrainingPrograms(device, {
    config,
    shape: SHAPE,
    buffers,
    settings: DEFAULT_OPTIMIZER,
  });
  const next = uniform(1, "bench");
  const tokens = SHAPE.batchSize * SHAPE.sequenceLength;
  const draw = (): Uint32Array<ArrayBuffer> =>
    Uint32Array.from({ length: tokens }, () => Math.floor(next() * config.vocabSize));
  const batch = { ids: draw(), targets: draw() };
  let step = 0;
  return {
    buffers,
    batch,
    planned: trainingMemory(options).peak,
    taken: device.memory.live - before,
    step: async () => {
      const start = performance.now();
      const { losses, gradNorm } = await programs.step([batch], { learningRate, step: step++, seed: 1 });
      return { ms: performance.now() - start, loss: losses.total, gradNorm };
    },
  };
}

/** Training steps: the peers' shape, and MoR against vanilla of the same depth. */
export async function benchTraining(device: GpuDevice): Promise<void> {
  const configs = {
    "vanilla, 4 layers": vanilla(4),
    "vanilla, 14 layers": vanilla(14),
    "MoR-3, 14 layers": mixtureOfRecursions(),
  };
  const rows = Object.entries(configs).map(([name, config]) => ({
    name,
    flops: flopsPerToken(config, { tokens: SHAPE.sequenceLength }).full,
    trainer: trainer(device, { config }),
    times: [] as number[],
  }));
  // The first steps compile the kernels.
  for (const { trainer } of rows) for (let i = 0; i < 2; i++) await trainer.step();
  for (let repeat = 0; repeat < REPEATS; repeat++) {
    for (const { trainer, times } of rows) times.push((await trainer.step()).ms);
  }
  print(
    `\ntraining step, d 256, FFN 1024 (SwiGLU), T 256, B 4, V 1024, f32: tokens/s, median of ${REPEATS} (range)`,
  );
  const tokens = SHAPE.batchSize * SHAPE.sequenceLength;
  for (const { name, flops, trainer, times } of rows) {
    const speeds = times.map((ms) => (tokens / ms) * 1000);
    const rate = (3 * flops * median(speeds)) / 1e9;
    const memory = `${formatBytes(trainer.taken)} taken, ${formatBytes(trainer.planned)} planned`;
    print(`  ${name.padEnd(20)} ${range(speeds, 0).padEnd(24)} ${rate.toFixed(1)} GFLOP/s, ${memory}`);
  }
  const [, deep, mor] = rows as [typeof rows[0], typeof rows[0], typeof rows[0]];
  const gains = deep.times.map((ms, i) => ms / mor.times[i]!);
  const ratio = deep.flops / mor.flops;
  print(
    `  MoR-3 over vanilla   ${range(gains, 3)}; ratio of FLOPs per token ${ratio.toFixed(3)}; ` +
      `part reached ${(median(gains) / ratio).toFixed(3)}`,
  );
}
