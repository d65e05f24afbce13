/** Expert choice whose capacities come down from 1 over the first steps of a run. */
import { assert, assertEquals } from "@std/assert";
import { readTensor } from "../../gpu/readback.ts";
import { capacityWarmup, type ExpertChoiceConfig, keptTokens, type ModelConfig } from "../../model/config.ts";
import { depthFractions } from "../../model/router_health.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { batchOf, expertChoice, startTraining, stepShape } from "../support/training_case.ts";

const STEPS = 6;
const warmup = { capacity: STEPS, balancing: 0 };

const configs: Record<string, ModelConfig> = {
  "capacities by default": expertChoice(),
  "all steps below 1": expertChoice({ capacities: [0.9, 0.5, 0.2] }),
  "two steps alike": expertChoice({ capacities: [1, 0.4, 0.4] }),
  "shared keys and values": expertChoice({}, { kvCache: "shared" }),
  "auxiliary mlp routers": expertChoice({ auxiliary: "router", architecture: "mlp" }),
  "a random router": expertChoice({ random: true }),
};

/** Fractions of the depths when the steps keep what a warm-up at the given update asks for. */
function expectedFractions({ router, recursion }: ModelConfig, step: number): number[] {
  const tokens = stepShape.sequenceLength;
  const { numRecursions } = recursion!;
  const warmup = capacityWarmup(step, { steps: STEPS });
  return depthFractions(keptTokens(router as ExpertChoiceConfig, { numRecursions, tokens, warmup }), {
    tokens,
  });
}

/** Fraction of the tokens that reach each depth, 1 first. */
function reached(fractions: readonly number[]): number[] {
  return fractions.slice(1).map((_, r) => fractions.slice(r + 1).reduce((sum, part) => sum + part, 0));
}

for (const [name, config] of Object.entries(configs)) {
  gpuTest(
    `capacity warm-up keeps every token at first, then fewer, then what is configured: ${name}`,
    async (device) => {
      const { programs } = startTraining(device, { config, warmup });
      let before = [1, 1, 1];
      for (let step = 0; step <= STEPS + 1; step++) {
        const { health } = await programs.step([batchOf(stepShape)], { learningRate: 1e-3, step, seed: 3 });
        const { depthFractions: fractions } = health!;
        assertClose(fractions, expectedFractions(config, step), {
          relative: 1e-6,
          label: `depths at step ${step}`,
        });
        if (step === 0) assertEquals(fractions, [0, 0, 0, 1]);
        const now = reached(fractions);
        assert(now.every((part, r) => part <= before[r]! + 1e-6), `${now} after ${before}`);
        before = now;
      }
    },
  );

  gpuTest(`the step after capacity warm-up is that of a run without one: ${name}`, async (device) => {
    const warm = startTraining(device, { config, warmup });
    const plain = startTraining(device, { config });
    const batches = [batchOf(stepShape)];
    for (const step of [0, 3]) await warm.programs.step(batches, { learningRate: 0, step, seed: 3 });
    const settings = { learningRate: 0, step: STEPS, seed: 3 };
    const [met, wanted] = [
      await warm.programs.step(batches, settings),
      await plain.programs.step(batches, settings),
    ];
    assertEquals(met, wanted);
    const [gradient, plainGradient] = [
      await readTensor(device, warm.buffers.gradients.flat),
      await readTensor(device, plain.buffers.gradients.flat),
    ];
    assertEquals(gradient.findIndex((value, i) => value !== plainGradient[i]), -1, "a gradient differs");
  });
}
