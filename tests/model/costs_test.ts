/** What programs declare to cost: all of their dispatches, and as much arithmetic as the model's sizes ask for. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { type DispatchTime, timeWork } from "../../gpu/timing.ts";
import { BatchDevice } from "../../model/batching/batch_device.ts";
import type { ModelConfig } from "../../model/config.ts";
import { Decoder } from "../../model/decoder.ts";
import { flopsPerToken } from "../../model/flops.ts";
import { ACTIVATION_DTYPES, type ActivationDtype } from "../../model/layer_buffers.ts";
import { DEFAULT_SAMPLING } from "../../model/sampling.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";
import { causalSchemes } from "../support/causal_schemes.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { schemes } from "../support/schemes.ts";
import { startTraining } from "../support/training_case.ts";

/** Labels of dispatches that do not say what they cost. */
function costless(programs: readonly Commands[]): string[] {
  const steps = programs.flatMap(({ steps }) => steps);
  assert(steps.length > 0);
  return steps.flatMap((step) => step.kind === "dispatch" && step.cost === null ? [step.label] : []);
}

const shape = { batchSize: 2, sequenceLength: 20, gradientAccumulation: 1 };

for (const [name, config] of Object.entries({ ...schemes(), ...causalSchemes })) {
  gpuTest(`every dispatch of training and of decoding has a cost: ${name}`, (device) => {
    for (const activationDtype of ACTIVATION_DTYPES) {
      const { programs: { begin, batch, update } } = startTraining(device, {
        config,
        shape,
        activationDtype,
      });
      assertEquals(costless([begin, batch, update]), []);
    }
    const model = uploadModel(device, roundedModel(config, { seed: 5 }));
    // Prompts of many rows, and of few.
    for (const capacity of [30, 10]) {
      using decoder = new Decoder(device, { ...model, slots: 2, capacity, kvDtype: "f16" });
      const { prompt, step, choice } = decoder.programs;
      assertEquals(costless([prompt, step, choice]), []);
    }
    const options = { rows: 4, slots: 8, capacity: 30, kvBytes: 2 ** 20, endTokens: [], ticks: 1 };
    const texts = new BatchDevice(device, { ...model, ...options, kvDtype: "f32" });
    assertEquals(costless(texts.tick), []);
    texts.destroy();
    return Promise.resolve();
  });
}

const SEQUENCES = 2;
const TOKENS = 48;
const ROWS = SEQUENCES * TOKENS;

/** So large that what is no product hardly counts. */
const sizes = {
  vocabSize: 512,
  hiddenSize: 128,
  intermediateSize: 256,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 32,
};
const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const expertChoice = tinyRecursiveConfig(middleCycle, { ...sizes, router: tinyRouter() });

/** A model, and the tokens of a sequence that run each of its layers. */
interface Case {
  readonly config: ModelConfig;
  readonly layers: readonly number[];
}

const cases: Record<string, Case> = {
  "vanilla": { config: tinyConfig(sizes), layers: [48, 48, 48] },
  "recursive": { config: tinyRecursiveConfig(middleCycle, sizes), layers: [48, 48, 48, 48, 48] },
  "recursive, shared keys": {
    config: tinyRecursiveConfig(middleCycle, { ...sizes, kvCache: "shared" }),
    layers: [48, 48, 48, 48, 48],
  },
  "expert choice": { config: expertChoice, layers: [48, 48, 32, 16, 48] },
};

/** FLOPs of the dispatches whose label begins so. */
function flopsOf(times: readonly DispatchTime[], label = ""): number {
  const wanted = times.filter((time) => time.label.startsWith(label));
  assert(wanted.length > 0, `nothing begins with "${label}"`);
  return wanted.reduce((sum, { work }) => sum + work!.flops, 0);
}

function assertRatio(met: number, wanted: number, tolerance = 1e-9): void {
  assertAlmostEquals(met / wanted, 1, tolerance, `${met} instead of ${wanted}`);
}

/** Attention's two products in `count` layers, for a head's pairs of a row and a key that it sees. */
function attentionFlops(pairs: number): number {
  return 2 * 2 * sizes.numAttentionHeads * sizes.headDim * pairs;
}

/** FLOPs of layers and head without attention; routers, a product with one column for each step, are left out. */
function productFlops(config: ModelConfig): number {
  const routers = config.router ? config.recursion!.numRecursions * 2 * config.hiddenSize : 0;
  return flopsPerToken(config, { tokens: 0 }).full - routers;
}

/** The dispatches of a training step: those of the forward pass, and all. */
async function trainingTimes(
  device: GpuDevice,
  config: ModelConfig,
  activationDtype: ActivationDtype = "f32",
): Promise<{ forward: DispatchTime[]; all: DispatchTime[] }> {
  const { programs } = startTraining(device, {
    config,
    activationDtype,
    shape: { batchSize: SEQUENCES, sequenceLength: TOKENS, gradientAccumulation: 1 },
  });
  const ids = Uint32Array.from({ length: ROWS }, (_, i) => (i * i) % config.vocabSize);
  const { times: all } = await timeWork(
    device,
    () => programs.step([{ ids, targets: ids }], { learningRate: 0, step: 0, seed: 1 }),
  );
  return { forward: all.slice(0, all.findIndex(({ part }) => part === "losses")), all };
}

for (const [name, { config, layers }] of Object.entries(cases)) {
  gpuTest(`a forward pass costs what flopsPerToken says: ${name}`, async (device) => {
    const { forward } = await trainingTimes(device, config);
    // In full: the formula has T / 2 keys for a token, where the causal half has (T + 1) / 2.
    assertRatio(flopsOf(forward), flopsPerToken(config, { tokens: TOKENS }).full * ROWS, 0.03);
    // And to the last operation, apart: the formula's products, and the keys of each layer one by one.
    assertRatio(flopsOf(forward, "matmul"), productFlops(config) * ROWS);
    const pairs = layers.reduce((sum, tokens) => sum + tokens * (tokens + 1) / 2, 0);
    assertRatio(flopsOf(forward, "attention"), attentionFlops(pairs * SEQUENCES));
  });

  gpuTest(`training takes three times the matrix products of its forward pass: ${name}`, async (device) => {
    const { forward, all } = await trainingTimes(device, config);
    assertRatio(flopsOf(all, "matmul"), 3 * flopsOf(forward, "matmul"));
  });
}

gpuTest(
  "activations in f16 cost no product, and what is stored is rounded once and expanded once",
  async (device) => {
    const { hiddenSize: c, intermediateSize: f, numAttentionHeads: h, numKeyValueHeads: g, headDim: d } =
      sizes;
    const [f32, f16] = [
      await trainingTimes(device, tinyConfig(sizes)),
      await trainingTimes(device, tinyConfig(sizes), "f16"),
    ];
    assertRatio(flopsOf(f16.all, "matmul"), flopsOf(f32.all, "matmul"));
    assertRatio(flopsOf(f16.all, "attention"), flopsOf(f32.all, "attention"));
    // Projection, attention, mid state, gate and up of three layers, and the outputs of all but the last.
    const numbers = ROWS * (3 * ((h + 2 * g) * d + h * d + c + 2 * f) + 2 * c);
    for (const label of ["cast to_f16", "cast to_f32"]) {
      const casts = f16.all.filter((time) => time.label === label);
      assertEquals(casts.length, 3 * 4 + 2);
      assertEquals(casts.reduce((sum, { work }) => sum + work!.bytes, 0), 6 * numbers);
    }
  },
);

gpuTest("a router scores the tokens that the step before has kept", async (device) => {
  const { forward } = await trainingTimes(device, expertChoice);
  assertEquals(flopsOf(forward, "router_score"), SEQUENCES * (48 + 48 + 32) * 2 * sizes.hiddenSize);
});

gpuTest("a decoding step costs what its token's depth and its text's length ask for", async (device) => {
  const config = tinyRecursiveConfig(middleCycle, { ...sizes, router: tinyTokenRouter() });
  const model = uploadModel(device, roundedModel(config, { seed: 5 }));
  using decoder = new Decoder(device, { ...model, slots: 1, capacity: 60 });
  const head = 2 * sizes.vocabSize * sizes.hiddenSize;
  const layer = (productFlops(tinyConfig(sizes)) - head) / 3;
  for (const depth of [1, 2, 3]) {
    decoder.forceDepth(depth);
    const prompt = Array.from({ length: 40 }, (_, i) => i);
    await decoder.start(0, { prompt, sampling: { ...DEFAULT_SAMPLING, seed: 1 } });
    const { times } = await timeWork(device, () => decoder.step([0]));
    // The first and the last layer, and the block as often as the depth says.
    const layers = 2 + depth;
    assertRatio(flopsOf(times, "matmul"), layers * layer + head);
    assertRatio(flopsOf(times, "attention"), attentionFlops(layers * 41));
    // The weights, two operations each, pass the bus, and little else.
    const bytes = times.filter(({ label }) => label.startsWith("matmul"))
      .reduce((sum, { work }) => sum + work!.bytes, 0);
    const weightBytes = 4 * (layers * layer + head) / 2;
    assert(bytes > weightBytes && bytes < 1.05 * weightBytes, `${bytes} bytes for ${weightBytes} of weights`);
  }
});
