/** Token choice kept in balance: the bias of loss-free balancing, and the warm-up before either kind begins. */
import { assertAlmostEquals, assertEquals, assertLess, assertNotEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { readTensor } from "../../gpu/readback.ts";
import type { TrainingBuffers } from "../../model/training.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { batchOf, startTraining, stepShape, tokenChoice } from "../support/training_case.ts";

/** The rate is a sum of powers of two, so that steps of it add up without rounding. */
const biasUpdateRate = 1 / 64;
const lossFree = tokenChoice({ balancing: "loss_free", biasUpdateRate });

async function biasOf(device: GpuDevice, { weights }: TrainingBuffers): Promise<number[]> {
  return Array.from(await readTensor(device, weights.routerBias!));
}

/** Tokens of each depth in the batches of the last step. */
async function loadOf(device: GpuDevice, { workspace: { decisions } }: TrainingBuffers): Promise<number[]> {
  if (decisions.kind !== "token_choice") throw new TypeError("The model has no token choice");
  return Array.from(await readTensor(device, decisions.decision.totals));
}

gpuTest("the loss-free bias moves by its rate toward balance, without gradient and decay", async (device) => {
  const shape = { ...stepShape, gradientAccumulation: 2 };
  const { buffers, programs } = startTraining(device, { config: lossFree, shape });
  const batches = [batchOf(shape), batchOf(shape, 1)];
  let bias = await biasOf(device, buffers);
  assertEquals(bias, [0, 0, 0]);
  for (let step = 0; step < 12; step++) {
    const { health } = await programs.step(batches, { learningRate: 1e-2, step, seed: 3 });
    const load = await loadOf(device, buffers);
    // Both batches count: 2 * 2 * 24 tokens, 32 a depth in balance.
    assertEquals(load.reduce((sum, count) => sum + count, 0), 96);
    bias = bias.map((value, j) => value + biasUpdateRate * Math.sign(32 - load[j]!));
    assertEquals(await biasOf(device, buffers), bias, `bias after step ${step}`);
    assertAlmostEquals(health!.depthFractions.reduce((sum, part) => sum + part, 0), 1, 1e-6);
    assertEquals(await readTensor(device, buffers.gradients.routerBias!), new Float32Array(3));
  }
  assertNotEquals(bias, [0, 0, 0]);
});

gpuTest("the loss-free bias brings a router that stands still into balance", async (device) => {
  const { buffers, programs } = startTraining(device, { config: lossFree });
  const violations: number[] = [];
  for (let step = 0; step < 40; step++) {
    const { health } = await programs.step([batchOf(stepShape)], { learningRate: 0, step, seed: 3 });
    violations.push(health!.maxViolation);
  }
  const last = Math.min(...violations.slice(-5));
  assertLess(last, 0.5 * violations[0]!, `violations ${violations}; bias ${await biasOf(device, buffers)}`);
});

gpuTest("the balancing loss spreads the tokens over the depths", async (device) => {
  const last: Record<string, number> = {};
  for (const balancing of ["loss", "none"] as const) {
    const config = tokenChoice({ balancing, balancingCoefficient: 1 });
    const { programs } = startTraining(device, { config });
    const losses: number[] = [];
    for (let step = 0; step < 40; step++) {
      const result = await programs.step([batchOf(stepShape)], { learningRate: 3e-3, step, seed: 3 });
      losses.push(result.losses.balancing!);
    }
    last[balancing] = losses.at(-1)!;
  }
  // 1 is balance; all tokens at one depth are 3.
  assertClose([last.loss!], [1], { relative: 0.05, label: "balancing loss" });
  assertLess(last.loss!, last.none!);
});

for (const balancing of ["loss", "loss_free"] as const) {
  gpuTest(
    `balancing warm-up sends every token to the last depth, then lets go: ${balancing}`,
    async (device) => {
      const config = tokenChoice({ balancing, biasUpdateRate });
      const warmup = { capacity: 0, balancing: 3 };
      const warm = startTraining(device, { config, warmup });
      for (let step = 0; step < 3; step++) {
        const { health } = await warm.programs.step([batchOf(stepShape)], { learningRate: 0, step, seed: 3 });
        assertEquals(health!.depthFractions, [0, 0, 0, 1]);
        if (balancing === "loss_free") assertEquals(await biasOf(device, warm.buffers), [0, 0, 0]);
      }
      const settings = { learningRate: 0, step: 3, seed: 3 };
      const met = await warm.programs.step([batchOf(stepShape)], settings);
      const wanted = await startTraining(device, { config }).programs.step([batchOf(stepShape)], settings);
      assertEquals(met, wanted);
      assertNotEquals(met.health!.depthFractions, [0, 0, 0, 1]);
      if (balancing === "loss_free") assertNotEquals(await biasOf(device, warm.buffers), [0, 0, 0]);
    },
  );
}
