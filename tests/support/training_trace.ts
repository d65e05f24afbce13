/** Some steps of training from given weights on given batches, and all that they leave. */
import type { GpuDevice } from "../../gpu/device.ts";
import { BufferScope } from "../../gpu/memory.ts";
import { readTensors } from "../../gpu/readback.ts";
import type { ModelConfig } from "../../model/config.ts";
import type { ActivationDtype } from "../../model/layer_buffers.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import type { Batch } from "../../model/text/dataset.ts";
import {
  allocateTraining,
  NO_WARMUP,
  type RouterWarmup,
  type StepResult,
  type StepShape,
  TrainingPrograms,
} from "../../model/training.ts";
import { randomIds } from "../reference/tiny_model.ts";
import { roundedModel, writeModel } from "./gpu_model.ts";
import { createRandom } from "./random.ts";
import { schemes } from "./schemes.ts";
import { expertChoice, tokenChoice } from "./training_case.ts";

/** Two batches of two sequences of 13 tokens: 26 rows. */
export const traceShape: StepShape = { batchSize: 2, sequenceLength: 13, gradientAccumulation: 2 };

/** What is trained. */
export interface TrainingCase {
  readonly config: ModelConfig;
  readonly shape?: StepShape;
  readonly warmup?: RouterWarmup;
}

/** What a step of training leaves, to be compared bit by bit. */
export interface Trace {
  readonly result: StepResult;
  readonly gradients: Uint32Array<ArrayBuffer>;
  readonly weights: Uint32Array<ArrayBuffer>;
}

/** AdamW steps, always from the same weights on the same batches. */
export async function trainingTraces(
  device: GpuDevice,
  { config, shape = traceShape, warmup = NO_WARMUP, steps, ...kept }: TrainingCase & {
    steps: number;
    recompute: boolean;
    activationDtype: ActivationDtype;
  },
): Promise<Trace[]> {
  const scope = new BufferScope(device);
  const buffers = allocateTraining(scope, { config, shape, warmup, ...kept, evaluationSequences: 0 });
  const { layout, weights, gradients } = buffers;
  writeModel(device, roundedModel(config, { seed: 26 }).weights, { layout, views: weights });
  const programs = new TrainingPrograms(device, {
    config,
    shape,
    buffers,
    settings: DEFAULT_OPTIMIZER,
    warmup,
  });
  const random = createRandom(27);
  const count = shape.batchSize * shape.sequenceLength;
  const draw = (): Uint32Array<ArrayBuffer> => Uint32Array.from(randomIds(config, { random, count }));
  const traces: Trace[] = [];
  for (let step = 0; step < steps; step++) {
    const batches = Array.from(
      { length: shape.gradientAccumulation },
      (): Batch => ({ ids: draw(), targets: draw() }),
    );
    const result = await programs.step(batches, { learningRate: 1e-2, step, seed: 3 });
    const [gradient, weight] = await readTensors(device, [gradients.flat, weights.flat]);
    traces.push({
      result,
      gradients: new Uint32Array(gradient!.buffer),
      weights: new Uint32Array(weight!.buffer),
    });
  }
  scope.destroy();
  return traces;
}

const text = { batchSize: 2, sequenceLength: 150, gradientAccumulation: 1 };

/** Models of every scheme, and what a training step may meet besides. */
export const trainingCases: Readonly<Record<string, TrainingCase>> = {
  ...Object.fromEntries(Object.entries(schemes()).map(([name, config]) => [name, { config }])),
  "expert choice at random": { config: expertChoice({ random: true }) },
  "token choice at random": { config: tokenChoice({ random: true }) },
  "expert choice whose capacities come down": {
    config: expertChoice({ capacities: [1, 0.5, 0.25] }),
    warmup: { capacity: 2, balancing: 0 },
  },
  "token choice whose tokens run all recursions at first": {
    config: tokenChoice(),
    warmup: { capacity: 0, balancing: 1 },
  },
  "sequences of several tiles": { config: expertChoice({}, { kvCache: "shared" }), shape: text },
  "sequences of several tiles by token choice": { config: tokenChoice(), shape: text },
  "sequences of one token": {
    config: expertChoice(),
    shape: { batchSize: 1, sequenceLength: 1, gradientAccumulation: 1 },
  },
};
