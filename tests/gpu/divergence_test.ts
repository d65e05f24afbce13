import { assert, assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { divergence } from "../../gpu/kernels/divergence.ts";
import type { Tensor, TensorData } from "../../gpu/tensor.ts";
import * as reference from "../reference/divergence.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { writtenPart } from "../support/row_cases.ts";

interface Case {
  readonly count: number;
  readonly vocabSize: number;
  readonly stride?: number;
  readonly spare?: number;
  /** Rows whose results lie before those of the logits', none unless told. */
  readonly first?: number;
  /** Standard deviation of the reference's logits, 2 unless told. */
  readonly deviation?: number;
  /** Standard deviation of the difference between the two, 0.3 unless told. */
  readonly difference?: number;
  /** Added to all logits of one side. */
  readonly shift?: number;
  /** Of the divergences, 1e-5 unless told. */
  readonly tolerance?: number;
}

const cases: Record<string, Case> = {
  "for a vocabulary without padding": { count: 16, vocabSize: 64 },
  "for an odd vocabulary with padding": { count: 13, vocabSize: 37, stride: 44 },
  "for one row": { count: 1, vocabSize: 5, stride: 8 },
  "for a vocabulary of one": { count: 2, vocabSize: 1, stride: 4 },
  "for distributions almost alike": { count: 9, vocabSize: 50, stride: 52, difference: 1e-3 },
  "for distributions that have nothing in common": { count: 9, vocabSize: 50, stride: 52, difference: 60 },
  // Differences of 64 are rounded to 8e-6.
  "for logits of another level": { count: 9, vocabSize: 50, stride: 52, shift: 64, tolerance: 1e-4 },
  "for logits that would overflow": { count: 9, vocabSize: 50, stride: 52, deviation: 1e4, difference: 1e4 },
  "for huge logits": { count: 9, vocabSize: 50, stride: 52, deviation: 1e30, difference: 1e30 },
  "for fewer rows than there is room for": { count: 10, vocabSize: 12, spare: 30 },
  "for some rows after others": { count: 13, vocabSize: 37, stride: 44, first: 3 },
  "for one row after many": { count: 1, vocabSize: 12, first: 1000 },
  "for no rows": { count: 0, vocabSize: 12 },
  "for no rows, with room for some": { count: 0, vocabSize: 12, spare: 30 },
  "for the vocabulary of SmolLM2": { count: 3, vocabSize: 49_152, deviation: 3, difference: 0.05 },
  "for a vocabulary of 70,001": { count: 3, vocabSize: 70_001, stride: 70_016 },
  "for a vocabulary that takes more lanes": { count: 2, vocabSize: 130_401, stride: 130_404 },
  "for 70,000 rows": { count: 70_000, vocabSize: 6, stride: 8 },
};

/** Rows as a device has them: what lies in padding columns and past the count must not matter. */
function uploadLogits(
  device: GpuDevice,
  values: Float64Array,
  { rows, vocabSize, stride }: { rows: number; vocabSize: number; stride: number },
): Tensor {
  const padded = new Float32Array(rows * stride).fill(NaN);
  values.forEach((value, i) => {
    if (i % stride < vocabSize) padded[i] = value;
  });
  return upload(device, padded, [rows, stride]);
}

async function compare(
  device: GpuDevice,
  { p, q }: { p: Float64Array; q: Float64Array },
  { count, vocabSize, stride = vocabSize, spare, first = 0 }: Case,
): Promise<{ divergences: number[]; agreements: number[] }> {
  const rows = uploadRows(device, { count, spare });
  const sizes = { rows: rows.maximum, vocabSize, stride };
  const referenceLogits = uploadLogits(device, p, sizes);
  const logits = uploadLogits(device, q, sizes);
  const shape = [first + rows.maximum];
  const outputs = { divergences: blank(device, shape), agreements: blank(device, shape) };
  const [divergences, agreements] = await run(device, (commands) => {
    recordRows(commands, rows);
    divergence(commands, { referenceLogits, logits, ...outputs }, { rows, first, vocabSize });
  }, [outputs.divergences, outputs.agreements]);
  function written(values: TensorData): number[] {
    assert(values.subarray(0, first).every(Number.isNaN), "results of other rows were written");
    return writtenPart(values.subarray(first), count);
  }
  return { divergences: written(divergences!), agreements: written(agreements!) };
}

async function checkCase(device: GpuDevice, settings: Case): Promise<void> {
  const { count, vocabSize, stride = vocabSize, deviation = 2, difference = 0.3, shift = 0 } = settings;
  const { tolerance: relative = 1e-5 } = settings;
  const random = createRandom(5);
  const p = random.normals(count * stride, deviation).map(Math.fround);
  const q = p.map((value) => Math.fround(value + shift + difference * random.normal()));
  const met = await compare(device, { p, q }, settings);
  const expected = reference.divergence({ reference: p, logits: q }, { vocabSize, stride });
  assertClose(met.divergences, expected.divergences, { relative, label: "divergences" });
  assert(met.divergences.every((value) => value >= 0), "a divergence is negative");
  assert(met.agreements.every((value, r) => value === expected.agreements[r]), "an agreement is wrong");

  const same = await compare(device, { p, q: p }, settings);
  assert(same.divergences.every((value) => value === 0), "a row diverges from itself");
  assert(same.agreements.every((value) => value === 1), "a row disagrees with itself");
}

for (const [name, settings] of Object.entries(cases)) {
  const title = `divergence matches the reference ${name}`;
  gpuTest(title, (device) => checkCase(device, settings));
  gpuTest(`${title}, hardware launch shapes`, (device) => checkCase(asHardware(device), settings));
}

/** Rows of 300 columns, 0 but for some. */
function spikes(...rows: readonly Readonly<Record<number, number>>[]): Float64Array {
  const values = new Float64Array(rows.length * 300);
  rows.forEach((entries, row) => {
    for (const [column, value] of Object.entries(entries)) values[row * 300 + Number(column)] = value;
  });
  return values;
}

gpuTest("divergence lets the lowest of equally likely tokens count", async (device) => {
  // Columns of one lane, of neighbouring lanes and of one lane's later turn; the zeros are equal whatever their sign.
  const p = spikes({ 7: 1, 290: 1 }, { 2: 1, 3: 1 }, { 40: 1, 296: 1 }, {}, { 0: -0 }, { 9: 1 });
  const q = spikes({ 7: 2 }, { 3: 2 }, { 296: 2 }, { 0: 1 }, {}, { 9: 1, 8: 1 });
  for (const adapter of [device, asHardware(device)]) {
    const { agreements } = await compare(adapter, { p, q }, { count: 6, vocabSize: 300 });
    assertEquals(agreements, [1, 0, 0, 1, 1, 0]);
  }
});

gpuTest("divergence shows logits that are not finite, wherever they are", async (device) => {
  const cleanRow = { 5: 1 };
  // In the first column, the last one, one of a lane that has not the largest, and one before it in its lane.
  const places = (
    x: number,
  ): Record<number, number>[] => [{ 0: x }, { 299: x }, { 5: 1, 150: x }, { 0: x, 256: 1 }];
  const bad = [NaN, Infinity, -Infinity].flatMap(places);
  const count = bad.length + 1;
  const clean = spikes(...new Array(count).fill(cleanRow));
  const damaged = spikes(...bad, cleanRow);
  for (const adapter of [device, asHardware(device)]) {
    for (const [p, q] of [[clean, damaged], [damaged, clean], [damaged, damaged]] as const) {
      const { divergences, agreements } = await compare(adapter, { p, q }, { count, vocabSize: 300 });
      assertEquals(divergences, [...bad.map(() => NaN), 0]);
      assertEquals(agreements, [...bad.map(() => NaN), 1]);
    }
  }
});

gpuTest("divergence refuses rows that are unlike, too short or not whole vectors", (device) => {
  function record(vocabSize: number, [p, q, first = 0]: readonly [number, number, number?]): void {
    const rows = uploadRows(device, { count: 1 });
    const tensors = {
      referenceLogits: blank(device, [1, p]),
      logits: blank(device, [1, q]),
      divergences: blank(device, [1]),
      agreements: blank(device, [1]),
    };
    divergence(new Commands(device, "test"), tensors, { rows, first, vocabSize });
  }
  assertThrows(() => record(9, [10, 10]), TypeError, "a multiple of 4");
  assertThrows(() => record(9, [8, 8]), TypeError, "at least 9 columns");
  assertThrows(() => record(9, [16, 12]), TypeError, "referenceLogits has shape (1,16)");
  assertThrows(() => record(9, [12, 12, 1]), TypeError, "divergences has shape (1), expected (2)");
  return Promise.resolve();
});
