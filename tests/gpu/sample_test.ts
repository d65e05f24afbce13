import { assert, assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { NO_TOKEN, sample, samplingRecord, seenWords, type SlotSampling } from "../../gpu/kernels/sample.ts";
import * as reference from "../reference/sample.ts";
import { blank, blankIndices, gpuTest } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { uploadRows } from "../support/packing.ts";
import {
  type Batch,
  type BatchOptions,
  bitsOf,
  draw,
  type Drawn,
  everything,
  filters,
  plain,
  randomBatch,
  UNTOUCHED,
} from "../support/sample_batch.ts";

/** What a row of a batch asks of the reference. */
function inputOf({ vocabSize, stride, logits, ...batch }: Batch, row: number): reference.SampleInput {
  const slot = batch.slots[row]!;
  return {
    logits: Float64Array.from(logits.subarray(row * stride, row * stride + vocabSize)),
    seen: batch.seen[slot]!,
    position: batch.positions[slot]!,
  };
}

/**
 * Two logarithms in f32 make a score (WGSL allows each three units in the last place of up to 23, or 2^-21), so tokens
 * whose scores differ by less than this may change places.
 */
const SCORE_TOLERANCE = 2e-5;

/** Exponentials in f32 may move the end of the nucleus by this part of the sum. */
const SHARE_TOLERANCE = 1e-5;

function checkRow(batch: Batch, { tokens, logProbabilities }: Drawn, row: number): void {
  const slot = batch.slots[row]!;
  const [input, sampling, token] = [inputOf(batch, row), batch.sampling[slot]!, tokens[slot]!];
  const { topP } = sampling;
  const [most, fewest] = topP === 1 ? [1, 1] : [topP + SHARE_TOLERANCE, topP - SHARE_TOLERANCE];
  const score = reference.sampleScores(input, { ...sampling, topP: most })[token]!;
  const best = reference.sampleScores(input, { ...sampling, topP: fewest }).reduce((a, b) => Math.max(a, b));
  assert(
    score >= best - SCORE_TOLERANCE,
    `row ${row} drew ${token} with score ${score}, the best has ${best}`,
  );
  const wanted = reference.logProbability(input.logits, token);
  assertAlmostEquals(logProbabilities[slot]!, wanted, 2e-6 * (1 + Math.abs(wanted)), `row ${row}`);
}

/** Checks all rows, and that the other slots and the seen tokens but the drawn ones stayed as they were. */
async function checkBatch(device: GpuDevice, batch: Batch): Promise<void> {
  const drawn = await draw(device, batch);
  batch.slots.forEach((_, row) => checkRow(batch, drawn, row));
  const isDrawn = new Set(batch.slots);
  drawn.tokens.forEach((token, slot) => {
    if (isDrawn.has(slot)) return;
    assertEquals([token, drawn.logProbabilities[slot]], [UNTOUCHED, NaN], `slot ${slot} has no row`);
  });
  const seen = batch.seen.map((set, slot) =>
    isDrawn.has(slot) ? new Set([...set, drawn.tokens[slot]!]) : set
  );
  assertEquals(drawn.seen, bitsOf(seen, batch.vocabSize));
}

const cases: Record<string, BatchOptions> = {
  "11 tokens": { rows: 2000, vocabSize: 11 },
  "512 tokens and padding": { rows: 500, vocabSize: 512, padding: 8 },
  "3,001 tokens": { rows: 100, vocabSize: 3001 },
  "49,152 tokens": { rows: 20, vocabSize: 49_152 },
  "49,152 tokens, few of them likely": {
    rows: 20,
    vocabSize: 49_152,
    logit: (random) => 7 * random.normal(),
  },
  "tokens as likely as others": {
    rows: 500,
    vocabSize: 350,
    logit: (random) => Math.round(4 * random.normal()) / 2,
  },
  "half of the tokens excluded": {
    rows: 200,
    vocabSize: 599,
    logit: (random) => random.uniform() < 0.5 ? -Infinity : random.normal(),
  },
  "logits beyond an exponential's reach": {
    rows: 200,
    vocabSize: 300,
    logit: (random) => 1e4 * random.normal(),
  },
  "more tokens than one invocation may loop over": {
    rows: 2,
    vocabSize: 209_917,
    sampling: [everything, { topP: 0.97, topK: 5000 }],
  },
  "tokens in the order of their likelihood": {
    rows: 32,
    vocabSize: 3000,
    logit: (random, id) => 2 - id / 100 + random.uniform() / 100,
  },
  "many tokens of few likelihoods, whose weights sum past 32 bits": {
    rows: 20,
    vocabSize: 130_401,
    logit: (random) => 5 - Math.ceil(random.uniform() * 3 - 0.003) / 4,
    sampling: [{ topP: 0.001 }, { topP: 0.3 }, { topP: 0.5 }, { topP: 0.9 }, { topK: 100 }],
  },
  "one row": { rows: 1, vocabSize: 40, sampling: [everything] },
  "a vocabulary of one": { rows: filters.length, vocabSize: 1 },
  "a dynamic count": { rows: 5, vocabSize: 40, sampling: [everything], spare: 20 },
  "a dynamic count of zero": { rows: 0, vocabSize: 40, spare: 20 },
};

for (const [name, options] of Object.entries(cases)) {
  gpuTest(`sample matches the reference: ${name}`, (device) => checkBatch(device, randomBatch(options)));
  gpuTest(`sample matches the reference: ${name}, hardware launch shapes`, (device) => {
    return checkBatch(asHardware(device), randomBatch(options));
  });
}
gpuTest("sample matches the reference: 70,000 rows", (device) => {
  return checkBatch(device, randomBatch({ rows: 70_000, vocabSize: 3, sampling: [{}] }));
});

gpuTest("sample resolves scores that hardly differ, however likely their noise", async (device) => {
  // Two tokens whose noise, the rarest and some of the commonest of 100,000, leaves them 1e-4 apart.
  const noises = Array.from({ length: 100_000 }, (_, position) => {
    const input = { logits: Float64Array.of(0, 0), seen: new Set<number>(), position };
    const [first, second] = reference.sampleScores(input, plain);
    return { position, first: first!, second: second! };
  }).toSorted((a, b) => a.first - b.first);
  const places = [...noises.slice(0, 100), ...noises.slice(50_000, 50_100), ...noises.slice(-100)];
  const wanted = places.map((_, row) => row % 2);
  const { tokens } = await draw(device, {
    vocabSize: 2,
    stride: 4,
    logits: Float32Array.from(
      places.flatMap(({ first, second }, row) => [0, first - second + (wanted[row]! - 0.5) * 2e-4, NaN, NaN]),
    ),
    slots: [...places.keys()],
    sampling: places.map(() => plain),
    positions: places.map(({ position }) => position),
    seen: places.map(() => new Set()),
  });
  assertEquals(tokens, wanted);
});

gpuTest("sample takes the likeliest token at temperature 0, of equals the lowest id", async (device) => {
  const vocabSize = 1000;
  const batch = randomBatch({ rows: 4, vocabSize, sampling: [{ temperature: 0 }], logit: () => -0.5 });
  [[999], [998, 3, 700], [], [0, 1]].forEach((ids, row) => {
    for (const id of ids) batch.logits[row * batch.stride + id] = -0.25;
  });
  const { tokens } = await draw(device, batch);
  assertEquals(batch.slots.map((slot) => tokens[slot]), [999, 3, 0, 0]);
});

gpuTest("sample keeps the ties of the last token that a filter keeps", async (device) => {
  const rows = 500;
  async function drawn(sampling: Partial<SlotSampling>): Promise<number[]> {
    const batch = randomBatch({ rows, vocabSize: 8, sampling: [sampling] });
    for (let row = 0; row < rows; row++) batch.logits.set([0, -1, 2, 0, 1, 0, -1, -9], row * batch.stride);
    const { tokens } = await draw(device, { ...batch, seen: batch.seen.map(() => new Set()) });
    return [...new Set(batch.slots.map((slot) => tokens[slot]!))].toSorted();
  }
  assertEquals(await drawn({ topK: 2 }), [2, 4]);
  assertEquals(await drawn({ topK: 3 }), [0, 2, 3, 4, 5]);
  // Of the weights 1, 1/e and three times 1/e^2, the first four are 93 %.
  assertEquals(await drawn({ topK: 5, topP: 0.9 }), [0, 2, 3, 4, 5]);
  assertEquals(await drawn({ minP: 0.13 }), [0, 2, 3, 4, 5]);
  assertEquals(await drawn({ minP: 1 }), [2]);
  assertEquals(await drawn({ topP: 0 }), [2]);
});

gpuTest("sample chooses nothing from damaged logits", async (device) => {
  const damages: readonly (readonly number[])[] = [
    [NaN],
    [1, 2, NaN, 3],
    [1, 2, 3, 4, 5, Infinity],
    new Array<number>(70).fill(-Infinity),
    [1, 2, 3],
  ];
  for (const sampling of [everything, { temperature: 0 }]) {
    const batch = randomBatch({ rows: damages.length + 1, vocabSize: 70, sampling: [sampling] });
    damages.forEach((values, row) => batch.logits.set(values, row * batch.stride));
    // A NaN that is negative and not quiet.
    new Uint32Array(batch.logits.buffer)[(damages.length - 1) * batch.stride + 69] = 0xff800001;
    const drawn = await draw(device, batch);
    for (const [row, slot] of batch.slots.entries()) {
      if (row === damages.length) checkRow(batch, drawn, row);
      else assertEquals([drawn.tokens[slot], drawn.logProbabilities[slot]], [NO_TOKEN, 0], `row ${row}`);
    }
  }
});

gpuTest("sample draws the same for a seed and a position in any row, slot and batch", async (device) => {
  const batch = randomBatch({ rows: 64, vocabSize: 2000 });
  const { stride, slots } = batch;
  const drawn = await draw(device, batch);
  // The last row first, and each slot's data a slot further.
  const order = [...slots.keys()].toReversed();
  const capacity = batch.sampling.length;
  function moved<T>(values: readonly T[]): T[] {
    return values.map((_, slot) => values[(slot + capacity - 1) % capacity]!);
  }
  const other = await draw(device, {
    ...batch,
    logits: Float32Array.from(
      order.flatMap((row) => [...batch.logits.subarray(row * stride, (row + 1) * stride)]),
    ),
    slots: order.map((row) => (slots[row]! + 1) % capacity),
    sampling: moved(batch.sampling),
    positions: moved(batch.positions),
    seen: moved(batch.seen),
  });
  assertEquals(other.tokens, moved(drawn.tokens));
  assertEquals(other.logProbabilities, moved(drawn.logProbabilities));
  for (const row of [0, 7, 63]) {
    const logits = batch.logits.subarray(row * stride, (row + 1) * stride);
    const alone = await draw(device, { ...batch, logits, slots: [slots[row]!] });
    assertEquals(alone.tokens[slots[row]!], drawn.tokens[slots[row]!]);
  }
});

gpuTest("sample refuses wrong shapes, too many tokens and settings that cannot be meant", (device) => {
  function record({ vocabSize, stride }: { vocabSize: number; stride: number }): void {
    const one = blankIndices(device, [1]);
    const tensors = {
      logits: blank(device, [1, stride]),
      slots: one,
      sampling: blankIndices(device, [1, 8]),
      positions: one,
      seen: blankIndices(device, [1, seenWords(vocabSize)]),
      tokens: blankIndices(device, [1]),
      logProbabilities: blank(device, [1]),
    };
    sample(new Commands(device, "test"), tensors, { rows: uploadRows(device, { count: 1 }), vocabSize });
  }
  assertThrows(() => record({ vocabSize: 9, stride: 10 }), TypeError, "a multiple of 4");
  assertThrows(() => record({ vocabSize: 9, stride: 8 }), TypeError, "at least 9 columns");
  assertThrows(() => record({ vocabSize: 900_000, stride: 900_000 }), RangeError, "900000 tokens");
  const wrong: readonly Partial<SlotSampling>[] = [
    { temperature: -1 },
    { temperature: NaN },
    { topK: -1 },
    { topP: 1.5 },
    { minP: 2 },
    { repeatPenalty: 0 },
  ];
  for (const settings of wrong) {
    assertThrows(() => samplingRecord({ ...plain, ...settings }), RangeError, "Cannot sample with");
  }
  return Promise.resolve();
});
