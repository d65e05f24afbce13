/** Steps of training on the smallest preset. */
import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertLess,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import { type GpuDevice, openDevice } from "../../gpu/device.ts";
import { MemoryError } from "../../gpu/errors.ts";
import { readTensor } from "../../gpu/readback.ts";
import type { ExpertChoiceConfig, ModelConfig } from "../../model/config.ts";
import { type Batch, splitTokens, trainingBatch } from "../../model/dataset.ts";
import { forwardCausal } from "../../model/forward.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { presetConfig } from "../../model/presets.ts";
import { byteTokenizer } from "../../model/tokenizer.ts";
import { selectionsOf } from "../../model/router_health.ts";
import {
  allocateTraining,
  type StepShape,
  type TrainingBuffers,
  trainingMemory,
  TrainingPrograms,
} from "../../model/training.ts";
import { initializeWeights, parameterTensor } from "../../model/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";

const mor = presetConfig("tiny");
const vanilla = presetConfig("tiny-vanilla");

function withRouter(changes: Partial<ExpertChoiceConfig>): ModelConfig {
  return { ...mor, router: { ...mor.router as ExpertChoiceConfig, ...changes } };
}

const text = "The quick brown fox jumps over the lazy dog; pack my box with five dozen liquor jugs. ".repeat(
  12,
);
const tokens = byteTokenizer.encode(text);
const split = { validationFraction: 0.2, sequenceLength: 24, vocabSize: 257 };
const dataset = await splitTokens(tokens, split);

const shape: StepShape = { batchSize: 2, sequenceLength: 24, gradientAccumulation: 1 };

/** A freshly initialised model and its programs. */
function start(
  device: GpuDevice,
  { config, shape }: { config: ModelConfig; shape: StepShape },
): { buffers: TrainingBuffers; programs: TrainingPrograms } {
  const buffers = allocateTraining(device, { config, shape, evaluationSequences: 0 });
  const { layout, weights } = buffers;
  initializeWeights(device, { layout, weights, seed: 3 });
  return {
    buffers,
    programs: new TrainingPrograms(device, { config, shape, buffers, settings: DEFAULT_OPTIMIZER }),
  };
}

function batchOf({ batchSize, sequenceLength }: StepShape, index = 0): Batch {
  return trainingBatch(dataset.training, { index, batchSize, sequenceLength, seed: 5 });
}

/** Cross-entropy at each step on one batch. */
async function overfit(
  device: GpuDevice,
  { config, steps }: { config: ModelConfig; steps: number },
): Promise<number[]> {
  const { programs } = start(device, { config, shape });
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    const { losses: { ce } } = await programs.step([batchOf(shape)], { learningRate: 5e-3, step, seed: 3 });
    losses.push(ce);
  }
  return losses;
}

const overfitted: Record<string, ModelConfig> = {
  "vanilla": vanilla,
  "recursive": presetConfig("tiny-rec3"),
  "Mixture-of-Recursions": mor,
  "Mixture-of-Recursions by random choice": withRouter({ random: true }),
};

for (const [name, config] of Object.entries(overfitted)) {
  gpuTest(`training learns one batch by heart: ${name}`, async (device) => {
    const losses = await overfit(device, { config, steps: 60 });
    // Weights start small, so that all 257 tokens are about as likely.
    assertClose([losses[0]!], [Math.log(257)], { relative: 0.05, label: "first loss" });
    assertLess(losses.at(-1)!, 1, `losses ${losses}`);
  });
}

gpuTest(
  "the random control chooses by seed and step, and its routers get no gradient",
  async (device) => {
    const config = withRouter({ random: true });
    const { buffers, programs } = start(device, { config, shape });
    const { layout, gradients, workspace } = buffers;
    const chosen: string[] = [];
    for (const [seed, step] of [[1, 0], [1, 0], [2, 0], [1, 1]] as const) {
      const { losses } = await programs.step([batchOf(shape)], { learningRate: 0, step, seed });
      chosen.push((await readTensor(device, selectionsOf(workspace)[2]!.packing.records)).join());
      assertEquals(losses.total, losses.ce);
    }
    assertEquals(chosen[0], chosen[1]);
    assertEquals(new Set(chosen).size, 3);
    for (let r = 0; r < 3; r++) {
      const gradient = await readTensor(
        device,
        parameterTensor(layout, gradients, `model.routers.${r}.weight`),
      );
      assertEquals(gradient.every((value) => value === 0), true);
    }
  },
);

gpuTest("the random control keeps the capacities' fractions in causal routing too", async (device) => {
  const config = withRouter({ random: true, capacities: [1, 0.6, 0.3] });
  const { layout, weights } = start(device, { config, shape }).buffers;
  const ids = [Array<number>(1000).fill(65)];
  const { depths } = await forwardCausal(device, {
    model: { config, layout, weights },
    input: { ids, targets: null },
  });
  const reached = [1, 2, 3].map((depth) => depths!.flat().filter((met) => met >= depth).length / 1000);
  // Five standard deviations of 1,000 draws.
  reached.forEach((fraction, r) => assertAlmostEquals(fraction, [1, 0.6, 0.3][r]!, 0.08));
});

gpuTest("gradient accumulation over two halves equals one batch of double size", async (device) => {
  const double = { ...shape, batchSize: 4 };
  const whole = batchOf(double);
  const half = 2 * shape.sequenceLength;
  const halves = [0, half].map((begin) => ({
    ids: whole.ids.slice(begin, begin + half),
    targets: whole.targets.slice(begin, begin + half),
  }));
  const one = start(device, { config: vanilla, shape: double });
  const two = start(device, { config: vanilla, shape: { ...shape, gradientAccumulation: 2 } });
  const settings = { learningRate: 1e-3, step: 0, seed: 3 };
  const wanted = await one.programs.step([whole], settings);
  const met = await two.programs.step(halves, settings);
  assertClose([met.losses.ce, met.gradNorm], [wanted.losses.ce, wanted.gradNorm], {
    relative: 1e-5,
    label: "step",
  });
  const [gradient, summed] = [
    await readTensor(device, one.buffers.gradients.flat),
    await readTensor(device, two.buffers.gradients.flat),
  ];
  assertClose(summed, gradient, { relative: 1e-5, measure: "norm", label: "gradients" });
});

gpuTest(
  "the gradient scale and the loss scale do not depend on the batches of the step before",
  async (device) => {
    const { buffers, programs } = start(device, { config: mor, shape });
    const settings = { learningRate: 0, step: 0, seed: 3 };
    const first = await programs.step([batchOf(shape)], settings);
    const gradient = await readTensor(device, buffers.gradients.flat);
    await programs.step([batchOf(shape, 1)], settings);
    assertEquals(await programs.step([batchOf(shape)], settings), first);
    assertEquals(await readTensor(device, buffers.gradients.flat), gradient);
  },
);

gpuTest("losses are those that the next step meets, and change nothing", async (device) => {
  const { buffers, programs } = start(device, { config: mor, shape: { ...shape, gradientAccumulation: 2 } });
  const batches = [batchOf(shape), batchOf(shape, 1)];
  const losses = await programs.losses(batches, { step: 0, seed: 3 });
  const before = await readTensor(device, buffers.weights.flat);
  const step = await programs.step(batches, { learningRate: 1e-3, step: 0, seed: 3 });
  assertEquals(losses, step.losses);
  assertNotEquals(await readTensor(device, buffers.weights.flat), before);
  assertLess((await programs.losses(batches, { step: 1, seed: 3 })).total, losses.total);
});

Deno.test("planned memory is what a training run takes, within 10 %", async () => {
  using device = await openDevice();
  const options = {
    config: mor,
    shape: { ...shape, batchSize: 4, sequenceLength: 64 },
    evaluationSequences: 4,
  };
  const planned = trainingMemory(options).peak;
  const buffers = allocateTraining(device, options);
  initializeWeights(device, { ...buffers, seed: 3 });
  assertEquals(device.memory.live, planned);
  const programs = new TrainingPrograms(device, { ...options, buffers, settings: DEFAULT_OPTIMIZER });
  await programs.step([batchOf(options.shape)], { learningRate: 1e-3, step: 0, seed: 3 });
  assert(
    Math.abs(device.memory.peak - planned) < 0.1 * planned,
    `planned ${planned}, peak ${device.memory.peak}`,
  );
});

Deno.test("a run that does not fit is refused with the option to lower", () => {
  const huge = { ...shape, batchSize: 2 ** 14, sequenceLength: 2 ** 13 };
  const options = { config: { ...mor, maxPositionEmbeddings: 2 ** 13 }, evaluationSequences: 0 };
  const message = "lower --batch-size or --sequence-length";
  assertThrows(() => trainingMemory({ ...options, shape: huge }), MemoryError, message);
});
