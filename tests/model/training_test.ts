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
import type { ModelConfig } from "../../model/config.ts";
import { forwardCausal } from "../../model/forward.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { presetConfig } from "../../model/presets.ts";
import { selectionsOf } from "../../model/router_health.ts";
import { allocateTraining, trainingMemory, TrainingPrograms } from "../../model/training.ts";
import { initializeWeights, parameterTensor } from "../../model/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import {
  batchOf,
  expertChoice,
  startTraining,
  stepShape as shape,
  tokenChoice,
} from "../support/training_case.ts";

const mor = expertChoice();
const vanilla = presetConfig("tiny-vanilla");

/** Cross-entropy at each step on one batch. */
async function overfit(
  device: GpuDevice,
  { config, steps }: { config: ModelConfig; steps: number },
): Promise<number[]> {
  const { programs } = startTraining(device, { config });
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
  "Mixture-of-Recursions by random choice": expertChoice({ random: true }),
  "Mixture-of-Recursions with mlp routers": expertChoice({ architecture: "mlp" }),
  "Mixture-of-Recursions with auxiliary routers": expertChoice({ auxiliary: "router" }),
  "Mixture-of-Recursions with shared keys and values": expertChoice({}, { kvCache: "shared" }),
  "token choice balanced by a loss": tokenChoice(),
  "token choice balanced by a bias": tokenChoice({ balancing: "loss_free" }),
  "token choice with an mlp router, shared keys and values": tokenChoice({ architecture: "mlp" }, {
    kvCache: "shared",
  }),
};

for (const [name, config] of Object.entries(overfitted)) {
  gpuTest(`training learns one batch by heart: ${name}`, async (device) => {
    const losses = await overfit(device, { config, steps: 60 });
    // Weights start small, so that all 257 tokens are about as likely.
    assertClose([losses[0]!], [Math.log(257)], { relative: 0.05, label: "first loss" });
    assertLess(losses.at(-1)!, 1, `losses ${losses}`);
  });
}

const byChance: Record<string, { config: ModelConfig; routers: readonly string[] }> = {
  "expert choice": {
    config: expertChoice({ random: true }),
    routers: [0, 1, 2].map((r) => `model.routers.${r}.weight`),
  },
  "token choice": { config: tokenChoice({ random: true }), routers: ["model.router.weight"] },
};

for (const [name, { config, routers }] of Object.entries(byChance)) {
  gpuTest(
    `the random control chooses by seed and step, and its routers do not learn: ${name}`,
    async (device) => {
      const { buffers, programs } = startTraining(device, { config });
      const { layout, gradients, workspace } = buffers;
      const chosen: string[] = [];
      for (const [seed, step] of [[1, 0], [1, 0], [2, 0], [1, 1]] as const) {
        const { losses } = await programs.step([batchOf(shape)], { learningRate: 0, step, seed });
        chosen.push((await readTensor(device, selectionsOf(workspace)[2]!.packing.records)).join());
        assertEquals(losses.total, losses.ce);
      }
      assertEquals(chosen[0], chosen[1]);
      assertEquals(new Set(chosen).size, 3);
      for (const router of routers) {
        const gradient = await readTensor(device, parameterTensor(layout, gradients, router));
        assertEquals(gradient.every((value) => value === 0), true);
      }
    },
  );
}

gpuTest("the random control keeps the capacities' fractions in causal routing too", async (device) => {
  const config = expertChoice({ random: true, capacities: [1, 0.6, 0.3] });
  const { layout, weights } = startTraining(device, { config }).buffers;
  const ids = [Array<number>(1000).fill(65)];
  const { depths } = await forwardCausal(device, {
    model: { config, layout, weights },
    input: { ids, targets: null },
  });
  const reached = [1, 2, 3].map((depth) => depths!.flat().filter((met) => met >= depth).length / 1000);
  // Five standard deviations of 1,000 draws.
  reached.forEach((fraction, r) => assertAlmostEquals(fraction, [1, 0.6, 0.3][r]!, 0.08));
});

/** The balancing loss is one of each batch's load, so that accumulation changes it. */
const accumulated: Record<string, ModelConfig> = {
  "vanilla": vanilla,
  "expert choice": expertChoice({ auxiliaryCoefficient: 0.1, zCoefficient: 0.01 }),
  "token choice": tokenChoice({ balancing: "none", zCoefficient: 0.01 }),
};

for (const [name, config] of Object.entries(accumulated)) {
  gpuTest(
    `gradient accumulation over two halves equals one batch of double size: ${name}`,
    async (device) => {
      const double = { ...shape, batchSize: 4 };
      const whole = batchOf(double);
      const half = 2 * shape.sequenceLength;
      const halves = [0, half].map((begin) => ({
        ids: whole.ids.slice(begin, begin + half),
        targets: whole.targets.slice(begin, begin + half),
      }));
      const one = startTraining(device, { config, shape: double });
      const two = startTraining(device, { config, shape: { ...shape, gradientAccumulation: 2 } });
      const settings = { learningRate: 1e-3, step: 0, seed: 3 };
      const wanted = await one.programs.step([whole], settings);
      const met = await two.programs.step(halves, settings);
      const tolerance = { relative: 1e-5, label: "step" };
      assertClose([met.losses.ce, met.gradNorm], [wanted.losses.ce, wanted.gradNorm], tolerance);
      assertClose([met.losses.total], [wanted.losses.total], tolerance);
      const [gradient, summed] = [
        await readTensor(device, one.buffers.gradients.flat),
        await readTensor(device, two.buffers.gradients.flat),
      ];
      assertClose(summed, gradient, { relative: 1e-5, measure: "norm", label: "gradients" });
    },
  );
}

gpuTest(
  "the gradient scale and the loss scale do not depend on the batches of the step before",
  async (device) => {
    const { buffers, programs } = startTraining(device, { config: mor });
    const settings = { learningRate: 0, step: 0, seed: 3 };
    const first = await programs.step([batchOf(shape)], settings);
    const gradient = await readTensor(device, buffers.gradients.flat);
    await programs.step([batchOf(shape, 1)], settings);
    assertEquals(await programs.step([batchOf(shape)], settings), first);
    assertEquals(await readTensor(device, buffers.gradients.flat), gradient);
  },
);

gpuTest("losses are those that the next step meets, and change nothing", async (device) => {
  const { buffers, programs } = startTraining(device, {
    config: mor,
    shape: { ...shape, gradientAccumulation: 2 },
  });
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
