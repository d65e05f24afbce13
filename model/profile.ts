/**
 * How long a model's work takes, whole and kernel by kernel. Each repeat does the same work twice over: once by the
 * clock, and once with timestamps, which slow it down and so have no part in its wall time.
 */
import { setImmediate } from "node:timers";
import type { GpuDevice } from "../gpu/device.ts";
import { type DispatchTime, timeWork } from "../gpu/timing.ts";
import type { ModelConfig } from "./config.ts";
import { stepsPerRead } from "./slot_sampler.ts";
import { Decoder } from "./decoder.ts";
import { DEFAULT_OPTIMIZER } from "./optimizer.ts";
import type { ModelWeights } from "./model_weights.ts";
import { uniform } from "./random.ts";
import { DEFAULT_SAMPLING } from "./sampling.ts";
import { type StepShape, type TrainingBuffers, TrainingPrograms } from "./training.ts";

/** A kernel's part of a piece of work. */
export interface KernelTime {
  /** `file entry_point`. */
  readonly label: string;
  readonly calls: number;
  /** All calls together, on the GPU; the median of the repeats. */
  readonly milliseconds: number;
  /** Part of the time of all kernels, 0 to 1. */
  readonly share: number;
}

/** A piece of work, measured. */
export interface Profile {
  /** Tokens that it runs. */
  readonly tokens: number;
  /** By the clock, without timestamps; the median of the repeats. */
  readonly wallMilliseconds: number;
  /** The longest first; null where the adapter grants no timestamps. */
  readonly kernels: readonly KernelTime[] | null;
}

/** Sum of the times of dispatches or kernels. */
export function totalMilliseconds(times: readonly { readonly milliseconds: number }[]): number {
  return times.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
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
  /** Recursion steps that the tokens of the decoding steps ran, on average; null without recursion. */
  readonly meanDepth: number | null;
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
  const capacity = promptTokens + steps;
  using decoder = new Decoder(device, { config, weights, slots: 1, capacity });
  const prompt = Array.from(randomTokens(config, { seed, count: promptTokens }));
  let depths = 0;
  async function decode(): Promise<void> {
    depths = 0;
    // As generation does: where a read takes the runtime's 10 ms, several steps share one.
    const together = stepsPerRead(device);
    for (let done = 0; done < steps; done += together) {
      const tokens = await decoder.step([0], { count: Math.min(together, steps - done) });
      for (const [token] of tokens) depths += token!.depth;
    }
  }
  const [prefill, step] = await measure(device, [
    {
      work: () => decoder.start(0, { prompt, sampling: { ...DEFAULT_SAMPLING, seed } }),
      parts: 1,
      tokens: promptTokens,
    },
    { work: decode, parts: steps, tokens: 1 },
  ], options);
  return { prefill: prefill!, decode: step!, meanDepth: config.recursion ? depths / steps : null };
}

/** Measures a training step on a random batch. Its learning rate is 0, so that every repeat does the same. */
export async function profileTraining(
  device: GpuDevice,
  { config, buffers }: { config: ModelConfig; buffers: TrainingBuffers },
  { shape, ...options }: ProfileOptions & { shape: StepShape },
): Promise<Profile> {
  const { seed } = options;
  const programs = new TrainingPrograms(device, { config, shape, buffers, settings: DEFAULT_OPTIMIZER });
  const count = shape.batchSize * shape.sequenceLength;
  const batches = Array.from({ length: shape.gradientAccumulation }, (_, i) => {
    const tokens = randomTokens(config, { seed: seed + i, count: count * 2 });
    return { ids: tokens.slice(0, count), targets: tokens.slice(count) };
  });
  const [step] = await measure(device, [{
    work: () => programs.step(batches, { learningRate: 0, step: 0, seed }),
    parts: 1,
    tokens: count * batches.length,
  }], options);
  return step!;
}

function randomTokens(
  { vocabSize }: ModelConfig,
  { seed, count }: { seed: number; count: number },
): Uint32Array<ArrayBuffer> {
  const next = uniform(seed, "profile");
  return Uint32Array.from({ length: count }, () => Math.floor(next() * vocabSize));
}

/** Work of some equal parts, one of which is reported. */
interface Work {
  readonly work: () => Promise<unknown>;
  readonly parts: number;
  /** Of one part. */
  readonly tokens: number;
}

/** Does the works in their order, first to compile the kernels, then for each repeat by the clock and by timestamps. */
async function measure(
  device: GpuDevice,
  works: readonly Work[],
  { repeats, onRepeat }: ProfileOptions,
): Promise<Profile[]> {
  const runs = works.map(() => ({ wall: [] as number[], dispatches: [] as DispatchTime[][] }));
  for (const { work } of works) await work();
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const [i, { work }] of works.entries()) {
      const start = performance.now();
      await work();
      runs[i]!.wall.push(performance.now() - start);
    }
    if (device.features.has("timestamp-query")) {
      for (const [i, { work }] of works.entries()) {
        runs[i]!.dispatches.push((await timeWork(device, work)).times);
      }
    }
    onRepeat?.(repeat + 1);
    // Reading back blocks the event loop: let signals and timers through.
    await new Promise((resolve) => setImmediate(resolve));
  }
  return works.map(({ parts, tokens }, i) => ({
    tokens,
    wallMilliseconds: median(runs[i]!.wall) / parts,
    kernels: runs[i]!.dispatches.length > 0 ? kernelTimes(runs[i]!.dispatches, { parts }) : null,
  }));
}

/** Times by kernel from those of all dispatches in some repeats of the same work. */
function kernelTimes(repeats: readonly DispatchTime[][], { parts }: { parts: number }): KernelTime[] {
  const groups = repeats.map((dispatches) => Map.groupBy(dispatches, ({ label }) => label));
  const kernels = Array.from(groups[0]!, ([label, { length: calls }]) => {
    const sums = groups.map((group) => totalMilliseconds(group.get(label)!));
    return { label, calls: calls / parts, milliseconds: median(sums) / parts };
  });
  const total = totalMilliseconds(kernels);
  return kernels
    .map((kernel) => ({ ...kernel, share: kernel.milliseconds / total }))
    .toSorted((a, b) => b.milliseconds - a.milliseconds);
}

/** The middle of some values, or of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
