/** Whether the tokens that `sample` draws are distributed as they should be, and unrelated to each other. */
import { assert, assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import type { SlotSampling } from "../../gpu/kernels/sample.ts";
import { gpuTest } from "../support/device.ts";
import { draw, plain } from "../support/sample_batch.ts";

const logits = [1.5, -1, 0, 2, -0.5, 0.25, 1, -2, 0.75, 1.75, -3];

interface Draws {
  readonly seeds: readonly number[];
  /** Positions 0..positions - 1 are drawn for each seed. */
  readonly positions: number;
  readonly sampling?: Partial<SlotSampling>;
}

/** A token for each seed and, within it, each position. */
async function drawMany(device: GpuDevice, { seeds, positions, sampling = {} }: Draws): Promise<number[]> {
  const places = seeds.flatMap((seed) =>
    Array.from({ length: positions }, (_, position) => ({ seed, position }))
  );
  const { tokens } = await draw(device, {
    vocabSize: logits.length,
    stride: 12,
    logits: Float32Array.from(places.flatMap(() => [...logits, 99])),
    slots: [...places.keys()],
    sampling: places.map(({ seed }) => ({ ...plain, ...sampling, seed })),
    positions: places.map(({ position }) => position),
    seen: places.map(() => new Set()),
  });
  return tokens;
}

/**
 * Compares counts with probabilities by Pearson's chi-square, which has the mean k and the variance 2k for k degrees of
 * freedom. Five standard deviations: the seeds are fixed, so a right kernel passes or fails for good.
 */
function assertDistributed(counts: readonly number[], probabilities: readonly number[]): void {
  const total = counts.reduce((sum, count) => sum + count, 0);
  let statistic = 0;
  counts.forEach((count, i) => {
    const wanted = probabilities[i]! * total;
    if (wanted === 0) assertEquals(count, 0, `category ${i}`);
    else statistic += (count - wanted) ** 2 / wanted;
  });
  const freedom = probabilities.filter((probability) => probability > 0).length - 1;
  assert(statistic < freedom + 5 * Math.sqrt(2 * freedom), `chi-square ${statistic} of ${freedom}`);
}

function histogram(values: readonly number[], categories: number): number[] {
  const counts = new Array<number>(categories).fill(0);
  for (const value of values) counts[value]! += 1;
  return counts;
}

/** softmax(logits / temperature) over the given tokens. */
function softmax({ temperature, kept }: { temperature: number; kept: readonly number[] }): number[] {
  const weights = logits.map((logit, id) => kept.includes(id) ? Math.exp(logit / temperature) : 0);
  const sum = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / sum);
}

const all = [...logits.keys()];
const distributions: Record<
  string,
  { sampling: Partial<SlotSampling>; temperature: number; kept: readonly number[] }
> = {
  "the model's own": { sampling: {}, temperature: 1, kept: all },
  "sharper at a low temperature": { sampling: { temperature: 0.6 }, temperature: 0.6, kept: all },
  "flatter at a high temperature": { sampling: { temperature: 3 }, temperature: 3, kept: all },
  "that of the tokens kept": {
    sampling: { temperature: 1.5, topK: 4 },
    temperature: 1.5,
    kept: [0, 3, 6, 9],
  },
};
for (const [name, { sampling, ...wanted }] of Object.entries(distributions)) {
  gpuTest(`sample's distribution is ${name}`, async (device) => {
    // Neighbours, as a user counts seeds up, and far ones; of each as many tokens as a long text has.
    const tokens = await drawMany(device, {
      seeds: [0, 1, 2, 0xdeadbeef, 0xffffffff],
      positions: 4000,
      sampling,
    });
    assertDistributed(histogram(tokens, logits.length), softmax(wanted));
  });
}

gpuTest("sample's tokens are unrelated at neighbouring positions and seeds", async (device) => {
  const positions = 10_000;
  // Flat, so that no pair is too rare for the chi-square.
  const temperature = 3;
  const tokens = await drawMany(device, { seeds: [41, 42], positions, sampling: { temperature } });
  const [first, second] = [tokens.slice(0, positions), tokens.slice(positions)];
  const single = softmax({ temperature, kept: all });
  const pairs = single.flatMap((a) => single.map((b) => a * b));
  for (const other of [second, [...first.slice(1), first[0]!], [...first.slice(2), ...first.slice(0, 2)]]) {
    const paired = first.map((token, i) => token * logits.length + other[i]!);
    assertDistributed(histogram(paired, pairs.length), pairs);
  }
});
