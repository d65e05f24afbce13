import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { NO_TOKEN } from "../../gpu/kernels/sample.ts";
import { SLOT_FIELD_COUNT, TALLIES, TALLY_COUNT } from "../../gpu/kernels/slot_fields.ts";
import { finishTokens, LOG_RECORD_LENGTH } from "../../gpu/kernels/slot_finish.ts";
import { fixedPacking } from "../../gpu/packing.ts";
import { tensorFrom, writeTensor } from "../../gpu/tensor.ts";
import { blank, blankIndices, gpuTest, run, uploadIndices } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom, type Random } from "../support/random.ts";
import { assertSame, randomText, slotData } from "../support/slot_batch.ts";
import { shuffled } from "../support/text_pages.ts";

const UNTOUCHED = 0xdddddddd;
/** Tokens drawn in these tests. */
const VOCABULARY = 12;

interface Case {
  readonly slots: number;
  readonly maximum: number;
  /** Rows of each call. */
  readonly counts: readonly number[];
  /** The tokens that end a text. */
  readonly ends: readonly number[];
  /** Records in the log before the first call. */
  readonly events?: number;
}

const cases: Record<string, Case> = {
  "tidy sizes": { slots: 128, maximum: 64, counts: [64, 64, 64], ends: [7] },
  "odd sizes": { slots: 192, maximum: 117, counts: [117, 3, 0, 65], ends: [11, 0, 5] },
  "all slots": { slots: 640, maximum: 640, counts: [640, 640], ends: [2] },
  "one row": { slots: 64, maximum: 1, counts: [1, 1, 1, 1], ends: [3] },
  "no rows": { slots: 64, maximum: 20, counts: [0, 0], ends: [3] },
  "no end token": { slots: 64, maximum: 40, counts: [40, 22], ends: [] },
  "an end token that is none": { slots: 64, maximum: 40, counts: [40, 22], ends: [NO_TOKEN] },
  "every token an end": { slots: 64, maximum: 40, counts: [40], ends: [...Array(VOCABULARY).keys()] },
  "a log that has records": { slots: 64, maximum: 40, counts: [7, 33], ends: [1], events: 129 },
  "70,000 rows": { slots: 70_016, maximum: 70_000, counts: [70_000, 69_999], ends: [4, 8] },
};

/** Bits of any float: numbers, infinities and those that are no numbers. */
function randomBits(random: Random, length: number): Uint32Array<ArrayBuffer> {
  return Uint32Array.from({ length }, () => random.integer(2 ** 32));
}

async function checkCase(
  device: GpuDevice,
  { slots: size, maximum, counts, ends, events = 0 }: Case,
): Promise<void> {
  const random = createRandom(15);
  const texts = Array.from({ length: size }, () => {
    const text = randomText(random, { phase: "leaving", capacity: 1000, steps: 4 });
    return { ...text, step: random.integer(5), remaining: 2 + random.integer(3) };
  });
  const slots = uploadIndices(device, slotData(texts), [SLOT_FIELD_COUNT, size]);
  const packing = fixedPacking(device, { count: maximum });
  const entries = events + counts.reduce((sum, count) => sum + count, 0);
  const log = new Uint32Array((Math.max(entries, maximum) + 3) * LOG_RECORD_LENGTH).fill(UNTOUCHED);
  const tallies = Uint32Array.from({ length: TALLY_COUNT }, () => random.integer(1000));
  tallies[TALLIES.events] = events;
  const tensors = {
    slots,
    packing,
    tokens: blankIndices(device, [size]),
    logProbabilities: blank(device, [size]),
    ends: uploadIndices(device, [ends.length, ...ends, 9, 9]), // what is past the number is none of them
    log: uploadIndices(device, log, [log.length / LOG_RECORD_LENGTH, LOG_RECORD_LENGTH]),
    tallies: uploadIndices(device, tallies),
  };
  for (const [call, count] of counts.entries()) {
    const order = shuffled(random, size).slice(0, maximum);
    const tokens = Uint32Array.from(
      { length: size },
      () => random.uniform() < 0.05 ? NO_TOKEN : random.integer(VOCABULARY),
    );
    const bits = randomBits(random, size);
    writeTensor(device, packing.records, Uint32Array.from(order.flatMap((slot) => [slot, 1, 2, 3])));
    writeTensor(device, packing.rows.count, Uint32Array.of(count));
    writeTensor(device, tensors.tokens, tokens);
    writeTensor(device, tensors.logProbabilities, new Float32Array(bits.buffer));
    const outputs = [slots, tensors.log, tensors.tallies];
    const met = await run(device, (commands) => finishTokens(commands, tensors), outputs);

    order.slice(0, count).forEach((slot, row) => {
      const [text, token] = [texts[slot]!, tokens[slot]!];
      const record = [slot, token, bits[slot]!, text.step];
      log.set(record, (tallies[TALLIES.events]! + row) * LOG_RECORD_LENGTH);
      text.position++;
      text.remaining--;
      text.token = token;
      const hasEnded = text.remaining === 0 || token === NO_TOKEN || ends.includes(token);
      text.phase = hasEnded ? "ended" : "entering";
    });
    tallies[TALLIES.events]! += count;
    assertSame(met[0]!, slotData(texts), `slots after call ${call + 1}`);
    assertSame(met[1]!, log, `log after call ${call + 1}`);
    assertSame(met[2]!, tallies, `tallies after call ${call + 1}`);
    // Texts that have ended make room for others.
    for (const text of texts) {
      if (text.phase === "ended") text.remaining = 1 + random.integer(4);
      text.phase = "leaving";
    }
    writeTensor(device, slots, slotData(texts));
  }
}

for (const [name, settings] of Object.entries(cases)) {
  gpuTest(`finishTokens matches the model: ${name}`, async (device) => {
    await checkCase(device, settings);
    await checkCase(asHardware(device), settings);
  });
}

/** A drawn token, the tokens left to draw, and whether the text has ended after it; 3 and 9 are end tokens. */
const draws = [
  { token: 4, remaining: 2, ends: false },
  { token: 4, remaining: 1, ends: true },
  { token: 3, remaining: 2, ends: true },
  { token: 9, remaining: 7, ends: true },
  { token: 9, remaining: 1, ends: true },
  { token: 0, remaining: 5, ends: false },
  { token: 2, remaining: 5, ends: false }, // the number of end tokens is not one of them
  { token: NO_TOKEN, remaining: 5, ends: true },
  { token: NO_TOKEN, remaining: 1, ends: true },
] as const;

gpuTest("finishTokens ends texts by an end token, their length and damage", async (device) => {
  const random = createRandom(16);
  const texts = Array.from({ length: 64 }, (_, slot) => ({
    ...randomText(random, { phase: "leaving", capacity: 50, steps: 3 }),
    remaining: draws[slot]?.remaining ?? 1,
  }));
  const slots = uploadIndices(device, slotData(texts), [SLOT_FIELD_COUNT, 64]);
  const packing = fixedPacking(device, { count: draws.length });
  writeTensor(device, packing.records, Uint32Array.from(draws.flatMap((_, slot) => [slot, 0, 0, 0])));
  const tokens = Array.from({ length: 64 }, (_, slot) => draws[slot]?.token ?? 3);
  const tensors = {
    slots,
    packing,
    tokens: uploadIndices(device, tokens),
    logProbabilities: tensorFrom(device, { data: new Float32Array(64), label: "log-probabilities" }),
    ends: uploadIndices(device, [2, 3, 9]),
    log: blankIndices(device, [draws.length, LOG_RECORD_LENGTH]),
    tallies: blankIndices(device, [TALLY_COUNT]),
  };
  const [met] = await run(device, (commands) => finishTokens(commands, tensors), [slots]);
  draws.forEach(({ token, ends }, slot) => {
    const text = texts[slot]!;
    const phase = ends ? "ended" as const : "entering" as const;
    Object.assign(text, { phase, token, position: text.position + 1, remaining: text.remaining - 1 });
  });
  assertEquals([...met!], [...slotData(texts)]);
});

gpuTest("finishTokens refuses tensors that do not fit", (device) => {
  const tensors = {
    slots: blankIndices(device, [SLOT_FIELD_COUNT, 64]),
    packing: fixedPacking(device, { count: 8 }),
    tokens: blankIndices(device, [64]),
    logProbabilities: blank(device, [64]),
    ends: uploadIndices(device, [0]),
    log: blankIndices(device, [8, LOG_RECORD_LENGTH]),
    tallies: blankIndices(device, [TALLY_COUNT]),
  };
  const wrong = {
    slots: [5, 64],
    tokens: [63],
    log: [7, LOG_RECORD_LENGTH],
    tallies: [TALLY_COUNT - 1],
  };
  for (const [name, shape] of Object.entries(wrong)) {
    const changed = { ...tensors, [name]: blankIndices(device, shape) };
    assertThrows(
      () => finishTokens(new Commands(device, "test"), changed),
      TypeError,
      `Cannot record finishTokens: ${name} has shape (${shape})`,
    );
  }
  const manyEnds = { ...tensors, ends: blankIndices(device, [65_001]) };
  assertThrows(
    () => finishTokens(new Commands(device, "test"), manyEnds),
    RangeError,
    "Cannot look for 65000 end tokens in 8 rows",
  );
  return Promise.resolve();
});
