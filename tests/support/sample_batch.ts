/** Batches of logits to draw tokens from, and the drawing. */
import { assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { sample, samplingRecord, seenWords, type SlotSampling } from "../../gpu/kernels/sample.ts";
import { tensorFrom } from "../../gpu/tensor.ts";
import { blank, run, uploadIndices } from "./device.ts";
import { recordRows, uploadRows } from "./packing.ts";
import { createRandom, type Random } from "./random.ts";

/** Rows of logits with what belongs to their slots. */
export interface Batch {
  readonly vocabSize: number;
  readonly stride: number;
  /** (rows, stride). */
  readonly logits: Float32Array;
  readonly slots: readonly number[];
  /** By slot, as what follows. */
  readonly sampling: readonly SlotSampling[];
  readonly positions: readonly number[];
  readonly seen: readonly ReadonlySet<number>[];
  /** Rows that there is room for, past those in use. */
  readonly spare?: number | undefined;
}

/** What `sample` wrote, by slot. */
export interface Drawn {
  readonly tokens: number[];
  readonly logProbabilities: number[];
  readonly seen: Uint32Array;
}

/** Stands where no token was drawn. */
export const UNTOUCHED = 0xabcdef;

/** The model's own distribution. */
export const plain: SlotSampling = { temperature: 1, topK: 0, topP: 1, minP: 0, repeatPenalty: 1, seed: 1 };

/** Sets of seen tokens as `sample` takes them, (sets, words). */
export function bitsOf(sets: readonly ReadonlySet<number>[], vocabSize: number): Uint32Array<ArrayBuffer> {
  const words = seenWords(vocabSize);
  const bits = new Uint32Array(sets.length * words);
  sets.forEach((set, slot) => set.forEach((id) => bits[slot * words + (id >> 5)]! |= 1 << (id & 31)));
  return bits;
}

/** Runs `sample` once, and checks that it left the logits alone. */
export async function draw(device: GpuDevice, batch: Batch): Promise<Drawn> {
  const { vocabSize, stride, slots, spare } = batch;
  const capacity = batch.sampling.length;
  const rows = uploadRows(device, { count: slots.length, spare });
  const logits = new Float32Array(rows.maximum * stride).fill(NaN);
  logits.set(batch.logits);
  const outputs = {
    tokens: uploadIndices(device, new Array<number>(capacity).fill(UNTOUCHED)),
    logProbabilities: blank(device, [capacity]),
    seen: uploadIndices(device, bitsOf(batch.seen, vocabSize), [capacity, seenWords(vocabSize)]),
  };
  const tensors = {
    logits: tensorFrom(device, { data: logits, shape: [rows.maximum, stride], label: "logits" }),
    slots: uploadIndices(device, [...slots, ...new Array<number>(rows.maximum - slots.length).fill(0)]),
    sampling: uploadIndices(device, batch.sampling.flatMap((one) => [...samplingRecord(one)]), [capacity, 8]),
    positions: uploadIndices(device, batch.positions),
    ...outputs,
  };
  const [tokens, logProbabilities, seen, kept] = await run(device, (commands) => {
    recordRows(commands, rows);
    sample(commands, tensors, { rows, vocabSize });
  }, [outputs.tokens, outputs.logProbabilities, outputs.seen, tensors.logits]);
  assertEquals(kept, logits, "logits were overwritten");
  return { tokens: [...tokens!], logProbabilities: [...logProbabilities!], seen: seen as Uint32Array };
}

/** What a random batch is like. */
export interface BatchOptions {
  readonly rows: number;
  readonly vocabSize: number;
  readonly padding?: number;
  /** Taken in turn by the slots; all of `filters` unless told. */
  readonly sampling?: readonly Partial<SlotSampling>[];
  readonly spare?: number;
  /** Draws one logit; normal with deviation 3 unless told. */
  readonly logit?: (random: Random, id: number) => number;
}

/** All filters at once. */
export const everything: Partial<SlotSampling> = {
  temperature: 1.5,
  topK: 50,
  topP: 0.9,
  minP: 0.02,
  repeatPenalty: 1.1,
};

/** Each filter alone, strong and weak, and all of them. */
export const filters: readonly Partial<SlotSampling>[] = [
  {},
  { temperature: 0.3 },
  { temperature: 5 },
  { topK: 4 },
  { topK: 256 },
  { topK: 400, topP: 0.7 },
  { topK: 1_000_000 },
  { topP: 0.3 },
  { topP: 0.9 },
  { topP: 2e-5 },
  { topP: 1 - 2 ** -24 },
  { minP: 0.05 },
  { repeatPenalty: 1.3 },
  everything,
  { temperature: 0 },
  { temperature: 0, repeatPenalty: 1.7, topK: 1, topP: 0.1 },
];

/** Slots in random order, more of them than rows; padding columns that would win; up to three in ten tokens seen. */
export function randomBatch(
  {
    rows,
    vocabSize,
    padding = -vocabSize & 3,
    sampling = filters,
    spare,
    logit = (random) => 3 * random.normal(),
  }: BatchOptions,
): Batch {
  const random = createRandom(rows + vocabSize);
  const stride = vocabSize + padding;
  const logits = Float32Array.from({ length: rows * stride }, (_, i) => {
    return i % stride < vocabSize ? logit(random, i % stride) : [1e38, NaN, Infinity][i % 3]!;
  });
  const all = Array.from({ length: rows + 3 }, (_, slot) => ({ slot, key: random.uniform() }));
  return {
    vocabSize,
    stride,
    logits,
    slots: all.toSorted((a, b) => a.key - b.key).slice(0, rows).map(({ slot }) => slot),
    spare,
    sampling: all.map(({ slot }) => ({
      ...plain,
      seed: 0x9e3779b9 + slot,
      ...sampling[slot % sampling.length],
    })),
    positions: all.map(() => random.integer(10_000)),
    seen: all.map(() => new Set(Array.from({ length: vocabSize * 0.3 }, () => random.integer(vocabSize)))),
  };
}
