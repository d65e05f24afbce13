import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import type { Commands } from "../../gpu/commands.ts";
import { GpuDevice } from "../../gpu/device.ts";
import { readTensor } from "../../gpu/readback.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { Decoder } from "../../model/decoder.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { type Profile, profileInference, profileTraining, totalMilliseconds } from "../../model/profile.ts";
import { allocateTraining, TrainingPrograms } from "../../model/training.ts";
import { initializeWeights } from "../../model/weights.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const positions = { maxPositionEmbeddings: 300 };

const configs: Record<string, ModelConfig> = {
  "vanilla": tinyConfig(positions),
  "recursive": tinyRecursiveConfig(middleCycle, positions),
  "expert choice": tinyRecursiveConfig(middleCycle, { ...positions, router: tinyRouter() }),
  "token choice": tinyRecursiveConfig(middleCycle, { ...positions, router: tinyTokenRouter() }),
};

/** Two chunks of a prompt. */
const PROMPT = 260;

const options = { promptTokens: PROMPT, steps: 3, repeats: 2, seed: 1 };
const shape = { batchSize: 2, sequenceLength: 9, gradientAccumulation: 1 };

/** Dispatches of programs by label. */
function callsOf(programs: readonly Commands[]): Map<string, number> {
  const calls = new Map<string, number>();
  for (const step of programs.flatMap(({ steps }) => steps)) {
    if (step.kind === "dispatch") calls.set(step.label, (calls.get(step.label) ?? 0) + 1);
  }
  return calls;
}

/** Checks that every dispatch was counted once, and that the times can be times. */
function assertKernels({ kernels, wallMilliseconds }: Profile, expected: Map<string, number>): void {
  assertEquals(new Map(kernels!.map(({ label, calls }) => [label, calls])), expected);
  for (const { label, milliseconds } of kernels!) {
    assert(milliseconds > 0 && milliseconds < 10_000, `${label}: ${milliseconds} ms`);
  }
  const times = kernels!.map(({ milliseconds }) => milliseconds);
  assertEquals(times, times.toSorted((a, b) => b - a));
  assertAlmostEquals(kernels!.reduce((sum, { share }) => sum + share, 0), 1, 1e-9);
  assertAlmostEquals(kernels![0]!.share, times[0]! / totalMilliseconds(kernels!), 1e-9);
  assert(wallMilliseconds > 0 && wallMilliseconds < 10_000, `${wallMilliseconds} ms`);
}

for (const [name, config] of Object.entries(configs)) {
  gpuTest(`profileInference counts each dispatch of a prompt and of a step: ${name}`, async (device) => {
    const model = uploadModel(device, roundedModel(config, { seed: 5 }));
    const repeats: number[] = [];
    const { prefill, decode, meanDepth } = await profileInference(device, model, {
      ...options,
      onRepeat: (done) => repeats.push(done),
    });
    using decoder = new Decoder(device, { ...model, slots: 1, capacity: PROMPT + 3 });
    const { prompt, choice, step } = decoder.programs;
    assertKernels(prefill, callsOf([prompt, prompt, choice]).set("mark_seen mark_seen", 2));
    assertKernels(decode, callsOf([step]));
    assertEquals([prefill.tokens, decode.tokens], [PROMPT, 1]);
    assertEquals(repeats, [1, 2]);
    if (config.recursion === null) assertEquals(meanDepth, null);
    else if (config.router === null) assertEquals(meanDepth, 3);
    else assert(meanDepth! >= 0 && meanDepth! <= 3, `mean depth ${meanDepth}`);
  });

  gpuTest(`profileTraining counts each dispatch of a step and changes no weight: ${name}`, async (device) => {
    const buffers = allocateTraining(device, { config, shape, evaluationSequences: 0 });
    initializeWeights(device, { ...buffers, seed: 5 });
    const before = await readTensor(device, buffers.weights.flat);
    const profile = await profileTraining(device, { config, buffers }, { shape, repeats: 2, seed: 1 });
    const programs = new TrainingPrograms(device, { config, shape, buffers, settings: DEFAULT_OPTIMIZER });
    assertKernels(profile, callsOf([programs.begin, programs.batch, programs.update]));
    assertEquals(profile.tokens, 18);
    assertEquals(await readTensor(device, buffers.weights.flat), before);
  });
}

gpuTest("without timestamps there are wall times alone", async ({ handle, info, features }) => {
  const plain = new GpuDevice(
    handle,
    info,
    new Set([...features].filter((name) => name !== "timestamp-query")),
  );
  const model = uploadModel(plain, roundedModel(configs["expert choice"]!, { seed: 5 }));
  const { prefill, decode } = await profileInference(plain, model, { ...options, promptTokens: 4 });
  for (const { kernels, wallMilliseconds } of [prefill, decode]) {
    assertEquals(kernels, null);
    assert(wallMilliseconds > 0);
  }
});

gpuTest("profileInference refuses more tokens than the model has positions", async (device) => {
  const model = uploadModel(device, roundedModel(configs["vanilla"]!, { seed: 5 }));
  await assertRejects(
    () => profileInference(device, model, { ...options, promptTokens: 298 }),
    ConfigError,
    "301 tokens",
  );
});
