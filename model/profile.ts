/**
 * How long a model's work takes, whole and kernel by kernel. Each repeat does the same work twice over: once by the
 * clock, and once with timestamps, which slow it down and so have no part in its wall time.
 */
import { setImmediate } from "node:timers";
import type { GpuDevice } from "../gpu/device.ts";
import { type DispatchTime, timeWork } from "../gpu/timing.ts";
import type { ModelConfig } from "./config.ts";
import type { ModelWeights } from "./model_weights.ts";
import {
  type DepthTime,
  depthTimes,
  type KernelTime,
  kernelTimes,
  type PartTime,
  partTimes,
} from "./profile_times.ts";
import { mean, median } from "./statistics.ts";
import type { StepShape, TrainingBuffers } from "./training.ts";
import { InferenceWork, trainingWork, type Work } from "./work.ts";

/** A piece of work, measured. */
export interface Profile {
  /** Tokens that it runs. */
  readonly tokens: number;
  /** By the clock, without timestamps, in each repeat. */
  readonly samples: readonly number[];
  /** The median of the samples. */
  readonly wallMilliseconds: number;
  /** What the first run took longer than the median, whole: drivers compile when a kernel first runs. */
  readonly firstRunMilliseconds: number;
  /** Null where the adapter grants no timestamps. */
  readonly gpu: GpuProfile | null;
}

/** Where a piece of work spends its time on the GPU. */
export interface GpuProfile {
  /** The longest first. */
  readonly kernels: readonly KernelTime[];
  /** In the order in which they run. */
  readonly parts: readonly PartTime[];
  /** Dispatches of the last repeat, one after the other: of several pieces of work where it was done as such. */
  readonly timeline: readonly DispatchTime[];
}

/** How often to measure, and what to tell after each repeat. */
export interface ProfileOptions {
  readonly repeats: number;
  readonly seed: number;
  readonly onRepeat?: (done: number) => void;
}

export interface InferenceProfile {
  /** The whole prompt, all its chunks, and the choice of the first new token. */
  readonly prefill: Profile;
  /** One token: the mean of the steps. */
  readonly decode: Profile;
  /** Recording both, and compiling what the driver compiles then. */
  readonly recordMilliseconds: number;
  /** Recursion steps that the tokens of the decoding steps ran, on average; null without recursion. */
  readonly meanDepth: number | null;
  /** Decoding steps by the depth of their token; null without recursion or timestamps. */
  readonly depths: readonly DepthTime[] | null;
}

/** A training step, measured. */
export interface TrainingProfile extends Profile {
  readonly recordMilliseconds: number;
}

/**
 * Measures a random prompt and the steps after it, as generation runs them.
 *
 * @throws ConfigError for more tokens than the model has positions; MemoryError; RangeError for damaged weights.
 */
export async function profileInference(
  device: GpuDevice,
  { config, weights }: { config: ModelConfig; weights: ModelWeights },
  { promptTokens, steps, ...options }: ProfileOptions & { promptTokens: number; steps: number },
): Promise<InferenceProfile> {
  const { seed } = options;
  const start = performance.now();
  using inference = new InferenceWork(device, { config, weights }, { promptTokens, steps, seed });
  const recordMilliseconds = performance.now() - start;
  const [prefill, decode] = await measure(device, [inference.prefill, inference.decode], options);
  const { depths } = inference;
  return {
    prefill: prefill!.profile,
    decode: decode!.profile,
    recordMilliseconds,
    meanDepth: depths && mean(depths),
    depths: depths && decode!.repeats.length > 0 ? depthTimes({ repeats: decode!.repeats, depths }) : null,
  };
}

/** Measures a training step on a random batch. Its learning rate is 0, so that every repeat does the same. */
export async function profileTraining(
  device: GpuDevice,
  model: { config: ModelConfig; buffers: TrainingBuffers },
  { shape, ...options }: ProfileOptions & { shape: StepShape },
): Promise<TrainingProfile> {
  const start = performance.now();
  const work = trainingWork(device, model, { shape, seed: options.seed });
  const recordMilliseconds = performance.now() - start;
  const [step] = await measure(device, [work], options);
  return { ...step!.profile, recordMilliseconds };
}

/** A work's profile, and the dispatches of all repeats: none without timestamps. */
interface Measured {
  readonly profile: Profile;
  readonly repeats: readonly (readonly DispatchTime[])[];
}

/** Does the works in their order, first to compile the kernels, then for each repeat by the clock and by timestamps. */
async function measure(
  device: GpuDevice,
  works: readonly Work[],
  { repeats, onRepeat }: ProfileOptions,
): Promise<Measured[]> {
  const runs = works.map(() => ({ first: 0, wall: [] as number[], dispatches: [] as DispatchTime[][] }));
  for (const [i, { work }] of works.entries()) runs[i]!.first = await clock(work);
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const [i, { work, parts }] of works.entries()) runs[i]!.wall.push(await clock(work) / parts);
    if (device.features.has("timestamp-query")) {
      for (const [i, { work }] of works.entries()) {
        runs[i]!.dispatches.push((await timeWork(device, work)).times);
      }
    }
    onRepeat?.(repeat + 1);
    // Reading back blocks the event loop: let signals and timers through.
    await new Promise((resolve) => setImmediate(resolve));
  }
  return works.map(({ parts, tokens }, i) => {
    const { first, wall, dispatches } = runs[i]!;
    const wallMilliseconds = median(wall);
    const measured = { repeats: dispatches, pieces: parts };
    const gpu = dispatches.length === 0 ? null : {
      kernels: kernelTimes(measured),
      parts: partTimes(measured),
      timeline: dispatches.at(-1)!,
    };
    const firstRunMilliseconds = first - wallMilliseconds * parts;
    return {
      profile: { tokens, samples: wall, wallMilliseconds, firstRunMilliseconds, gpu },
      repeats: dispatches,
    };
  });
}

/** Milliseconds that something takes. */
async function clock(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}
