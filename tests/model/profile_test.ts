import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import type { Commands } from "../../gpu/commands.ts";
import { GpuDevice } from "../../gpu/device.ts";
import { readTensor } from "../../gpu/readback.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { Decoder } from "../../model/decoder.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { type Profile, profileInference, profileTraining } from "../../model/profile.ts";
import { median } from "../../model/statistics.ts";
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
function assertKernels({ gpu, samples, wallMilliseconds }: Profile, expected: Map<string, number>): void {
  const { kernels, parts, timeline } = gpu!;
  assertEquals(new Map(kernels.map(({ label, calls }) => [label, calls])), expected);
  for (const { label, milliseconds, flops, bytes } of kernels) {
    // A small kernel may take no longer than an empty pass.
    assert(milliseconds >= 0 && milliseconds < 10_000, `${label}: ${milliseconds} ms`);
    assert(flops! >= 0 && bytes! >= 0, `${label}: ${flops} FLOPs, ${bytes} bytes`);
  }
  const times = kernels.map(({ milliseconds }) => milliseconds);
  assertEquals(times, times.toSorted((a, b) => b - a));
  assert(times[0]! > 0);
  const count = (groups: readonly { calls: number }[]): number =>
    groups.reduce((sum, { calls }) => sum + calls, 0);
  assertAlmostEquals(count(parts), count(kernels), 1e-9);
  assertEquals(timeline.length % count(kernels), 0);
  assertEquals(samples.length, 2);
  assertEquals(wallMilliseconds, median(samples));
  assert(wallMilliseconds > 0 && wallMilliseconds < 10_000, `${wallMilliseconds} ms`);
}

for (const [name, config] of Object.entries(configs)) {
  gpuTest(`profileInference counts each dispatch of a prompt and of a step: ${name}`, async (device) => {
    const model = uploadModel(device, roundedModel(config, { seed: 5 }));
    const repeats: number[] = [];
    const { prefill, decode, meanDepth, depths } = await profileInference(device, model, {
      ...options,
      onRepeat: (done) => repeats.push(done),
    });
    using decoder = new Decoder(device, { ...model, slots: 1, capacity: PROMPT + 3 });
    const { prompt, choice, step } = decoder.programs;
    assertKernels(prefill, callsOf([prompt, prompt, choice]).set("mark_seen mark_seen", 2));
    assertKernels(decode, callsOf([step]));
    assertEquals([prefill.tokens, decode.tokens], [PROMPT, 1]);
    assertEquals(repeats, [1, 2]);
    const names = (profile: Profile): string[] => profile.gpu!.parts.map(({ part }) => part);
    const steps = config.recursion ? ["recursion 1", "recursion 2", "recursion 3"] : [];
    for (const part of ["embedding", "first layers", ...steps, "head", "sampling"]) {
      assert(names(prefill).includes(part) && names(decode).includes(part), `${names(decode)}`);
    }
    if (config.recursion === null) {
      assertEquals([meanDepth, depths], [null, null]);
      return;
    }
    assert(meanDepth! >= 0 && meanDepth! <= 3, `mean depth ${meanDepth}`);
    assertAlmostEquals(
      depths!.reduce((sum, { depth, steps }) => sum + depth * steps, 0) / 3,
      meanDepth!,
      1e-9,
    );
    // As many rows ran each recursion step as tokens were deep enough.
    for (const [r, step] of steps.entries()) {
      const { rows } = decode.gpu!.parts.find(({ part }) => part === step)!;
      const deep = depths!.reduce((sum, { depth, steps }) => sum + (depth > r ? steps : 0), 0);
      if (config.router) assertAlmostEquals(rows!, deep / 3, 1e-9);
      else assertEquals([rows, meanDepth], [1, 3]);
    }
  });

  gpuTest(`profileTraining counts each dispatch of a step and changes no weight: ${name}`, async (device) => {
    const buffers = allocateTraining(device, { config, shape, evaluationSequences: 0 });
    initializeWeights(device, { ...buffers, seed: 5 });
    const before = await readTensor(device, buffers.weights.flat);
    const profile = await profileTraining(device, { config, buffers }, { shape, repeats: 2, seed: 1 });
    const programs = new TrainingPrograms(device, { config, shape, buffers, settings: DEFAULT_OPTIMIZER });
    assertKernels(profile, callsOf([programs.begin, programs.batch, programs.update]));
    assertEquals(profile.tokens, 18);
    const parts = profile.gpu!.parts.map(({ part }) => part);
    const recursion = config.recursion
      ? ["recursion 3", "recursion 3, backward"]
      : ["first layers, backward"];
    for (const part of ["losses", "head, backward", ...recursion, "optimizer"]) {
      assert(parts.includes(part), `${part} of ${parts}`);
    }
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
  for (const { gpu, wallMilliseconds } of [prefill, decode]) {
    assertEquals(gpu, null);
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
