import { assert, assertEquals, assertThrows } from "@std/assert";
import { readTensor } from "../../gpu/readback.ts";
import { ConfigError } from "../../model/config.ts";
import { TimedModel } from "../../model/timed_model.ts";
import { allocateTraining } from "../../model/training.ts";
import { initializeWeights } from "../../model/weights.ts";
import { tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";

const config = tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 }, {
  maxPositionEmbeddings: 300,
  router: tinyRouter(),
});
const settings = {
  promptTokens: 260,
  steps: 3,
  recompute: false,
  activationDtype: "f32",
  seed: 1,
} as const;

gpuTest("TimedModel times a prompt and a step, time and again", async (device) => {
  const model = { ...uploadModel(device, roundedModel(config, { seed: 5 })), training: null };
  using timed = new TimedModel(device, model, { ...settings, shape: null });
  for (let time = 0; time < 3; time++) {
    const { prefill, decode, ...rest } = await timed.measure();
    assertEquals([prefill!.tokens, decode!.tokens, rest], [260, 1, {}]);
    assert(prefill!.milliseconds > 0 && decode!.milliseconds > 0);
  }
});

gpuTest("TimedModel times a training step, which changes no weight", async (device) => {
  const shape = { batchSize: 2, sequenceLength: 9, gradientAccumulation: 1 };
  const training = allocateTraining(device, { config, shape, evaluationSequences: 0 });
  initializeWeights(device, { ...training, seed: 5 });
  const before = await readTensor(device, training.weights.flat);
  const model = { config, weights: training.weights, training };
  using timed = new TimedModel(device, model, { ...settings, promptTokens: 5, shape });
  const { prefill, train } = await timed.measure();
  assertEquals([prefill!.tokens, train!.tokens], [5, 18]);
  assert(train!.milliseconds > 0);
  assertEquals(await readTensor(device, training.weights.flat), before);
});

gpuTest(
  "two models are timed in turns on one device, and one that is freed leaves the other be",
  async (device) => {
    const model = { ...uploadModel(device, roundedModel(config, { seed: 5 })), training: null };
    const [one, other] = [20, 30].map((promptTokens) =>
      new TimedModel(device, model, { ...settings, promptTokens, shape: null })
    );
    for (const timed of [one!, other!, other!, one!]) await timed.measure();
    one![Symbol.dispose]();
    assertEquals((await other!.measure()).prefill!.tokens, 30);
    other![Symbol.dispose]();
  },
);

gpuTest("TimedModel refuses more tokens than the model has positions", async (device) => {
  const model = { ...uploadModel(device, roundedModel(config, { seed: 5 })), training: null };
  assertThrows(
    () => new TimedModel(device, model, { ...settings, promptTokens: 298, shape: null }),
    ConfigError,
    "301 tokens",
  );
  await device.settle();
});
