/** Training that runs layers again for their gradients: every bit is that of training that keeps their activations. */
import { assertEquals, assertLess } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { BufferScope } from "../../gpu/memory.ts";
import { readTensors } from "../../gpu/readback.ts";
import type { ModelConfig } from "../../model/config.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { presetConfig } from "../../model/presets.ts";
import {
  allocateTraining,
  NO_WARMUP,
  type RouterWarmup,
  type StepResult,
  type StepShape,
  trainingMemory,
  TrainingPrograms,
} from "../../model/training.ts";
import type { Batch } from "../../model/text/dataset.ts";
import { randomIds, tinyConfig, tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, writeModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";
import { schemes } from "../support/schemes.ts";
import { expertChoice, tokenChoice } from "../support/training_case.ts";

const STEPS = 3;

const SHAPE: StepShape = { batchSize: 2, sequenceLength: 13, gradientAccumulation: 2 };

interface Case {
  readonly config: ModelConfig;
  readonly shape?: StepShape;
  readonly warmup?: RouterWarmup;
}

/** What a step of training leaves, to be compared bit by bit. */
interface Trace {
  readonly result: StepResult;
  readonly gradients: Uint32Array;
  readonly weights: Uint32Array;
}

/** Some AdamW steps from the same weights on the same batches. */
async function train(
  device: GpuDevice,
  { config, shape = SHAPE, warmup = NO_WARMUP, recompute }: Case & { recompute: boolean },
): Promise<Trace[]> {
  const scope = new BufferScope(device);
  const buffers = allocateTraining(scope, { config, shape, warmup, recompute, evaluationSequences: 0 });
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
  for (let step = 0; step < STEPS; step++) {
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

const capacities = [1, 0.5, 0.25];
const text = { batchSize: 2, sequenceLength: 150, gradientAccumulation: 1 };

const cases: Record<string, Case> = {
  ...Object.fromEntries(Object.entries(schemes()).map(([name, config]) => [name, { config }])),
  "expert choice at random": { config: expertChoice({ random: true }) },
  "token choice at random": { config: tokenChoice({ random: true }) },
  "expert choice whose capacities come down": {
    config: expertChoice({ capacities }),
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

for (const [name, options] of Object.entries(cases)) {
  gpuTest(`recomputation changes no loss, gradient or weight: ${name}`, async (device) => {
    const kept = await train(device, { ...options, recompute: false });
    const recomputed = await train(device, { ...options, recompute: true });
    assertEquals(recomputed.map(({ result }) => result), kept.map(({ result }) => result));
    for (let step = 0; step < STEPS; step++) {
      assertEquals(recomputed[step]!.gradients, kept[step]!.gradients, `gradients of step ${step}`);
      assertEquals(recomputed[step]!.weights, kept[step]!.weights, `weights after step ${step}`);
    }
  });
}

/** Bytes of a run's buffers. */
function bytesOf(config: ModelConfig, { recompute }: { recompute: boolean }): number {
  return trainingMemory({ config, shape: SHAPE, recompute, evaluationSequences: 2 }).live;
}

/** Bytes that recomputation saves. */
function savedBytes(config: ModelConfig): number {
  return bytesOf(config, { recompute: false }) - bytesOf(config, { recompute: true });
}

/** Numbers that a layer keeps for a row, but for its output: norms and their factors, projection, attention, SwiGLU. */
function keptPerRow(
  { hiddenSize: c, intermediateSize: f, numAttentionHeads: h, numKeyValueHeads: g, headDim: d }: ModelConfig,
  { makesKeys }: { makesKeys: boolean },
): number {
  return 2 * (c + 1) + (h + (makesKeys ? 2 * g : 0)) * d + h * d + h + c + 3 * f;
}

Deno.test("recomputation saves all that layers keep but their outputs, for every layer but one", () => {
  const rows = 26;
  const vanilla = tinyConfig();
  const whole = keptPerRow(vanilla, { makesKeys: true });
  assertEquals(savedBytes({ ...vanilla, numHiddenLayers: 1 }), 0);
  // Buffers are sized in multiples of 16 bytes: the two factors of 26 rows are 8 bytes larger each.
  const padding = 2 * 8;
  for (const layers of [2, 3, 9]) {
    const config = { ...vanilla, numHiddenLayers: layers };
    assertEquals(savedBytes(config), (layers - 1) * (rows * 4 * whole + padding), `${layers} layers`);
  }
  // Two ends, one layer of 13, 6 and 3 tokens in each of two sequences; the largest stays.
  const recursion = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
  const mor = tinyRecursiveConfig(recursion, { router: tinyRouter({ capacities }) });
  const factors = (count: number): number => 2 * (Math.ceil(count / 4) * 16 - count * 4);
  const saved = [26, 26, 12, 6].map((count) => count * 4 * whole + factors(count));
  assertEquals(savedBytes(mor), saved.reduce((sum, bytes) => sum + bytes, 0));
});

Deno.test("recomputation keeps the keys and values of the first recursion step where later ones read them", () => {
  const recursion = { sharing: "cycle", numRecursions: 4, blockLayers: 2 } as const;
  const config = tinyRecursiveConfig(recursion, { kvCache: "shared" });
  const [rows, padding] = [26, 2 * 8];
  const { numAttentionHeads: h, numKeyValueHeads: g, headDim: d } = config;
  const [first, later] = [true, false].map((makesKeys) => rows * 4 * keptPerRow(config, { makesKeys }));
  const projection = rows * 4 * (h + 2 * g) * d;
  // The common set, whose projection takes the later steps' queries, comes on top of the two that are kept.
  const expected = 2 * (first! + padding) + 6 * (later! + padding) - (first! + padding) - 2 * projection;
  assertEquals(savedBytes(config), expected);
});

Deno.test("recomputation leaves evaluation as it is", () => {
  for (const model of ["tiny-vanilla", "tiny-rec3", "tiny-mor3", "tiny-tok3"]) {
    const config = presetConfig(model);
    const evaluation = [false, true].map((recompute) => {
      const options = { config, shape: SHAPE, recompute };
      return trainingMemory({ ...options, evaluationSequences: 2 }).live -
        trainingMemory({ ...options, evaluationSequences: 0 }).live;
    });
    assertEquals(evaluation[1], evaluation[0], model);
    assertLess(bytesOf(config, { recompute: true }), bytesOf(config, { recompute: false }), model);
  }
});
