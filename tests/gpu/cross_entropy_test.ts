import { assert, assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { crossEntropy, IGNORED_TARGET } from "../../gpu/kernels/cross_entropy.ts";
import * as reference from "../reference/cross_entropy.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";

interface Case {
  readonly count: number;
  readonly vocabSize: number;
  readonly stride?: number;
  readonly spare?: number;
  /** Rows whose targets and losses lie before those of the logits', none unless told. */
  readonly first?: number;
  /** Standard deviation of the logits, 2 unless told. */
  readonly deviation?: number;
  /** Every how many rows one is ignored, none unless told. */
  readonly ignoreEvery?: number;
}

const cases: Record<string, Case> = {
  "for a vocabulary without padding": { count: 16, vocabSize: 64 },
  "for an odd vocabulary with padding": { count: 13, vocabSize: 37, stride: 44 },
  "for one row": { count: 1, vocabSize: 5, stride: 8 },
  "for a vocabulary of one": { count: 2, vocabSize: 1, stride: 4 },
  "for logits that would overflow": { count: 9, vocabSize: 50, stride: 52, deviation: 1e4 },
  "when rows are ignored": { count: 30, vocabSize: 21, stride: 24, ignoreEvery: 3 },
  "when all rows are ignored": { count: 3, vocabSize: 21, stride: 24, ignoreEvery: 1 },
  "for fewer rows than there is room for": { count: 10, vocabSize: 12, spare: 30 },
  "for some rows after others": { count: 13, vocabSize: 37, stride: 44, first: 3 },
  "for one row after many": { count: 1, vocabSize: 12, first: 1000 },
  "for no rows": { count: 0, vocabSize: 12, spare: 30 },
  "for a vocabulary larger than one invocation may loop over twice": {
    count: 2,
    vocabSize: 130_401,
    stride: 130_404,
  },
  "for 70,000 rows": { count: 70_000, vocabSize: 6, stride: 8 },
};

async function checkCase(
  device: GpuDevice,
  { count, vocabSize, stride = vocabSize, spare, first = 0, deviation = 2, ignoreEvery = Infinity }: Case,
): Promise<void> {
  const random = createRandom(4);
  const logits = Float64Array.from(random.normals(count * stride, deviation), Math.fround);
  const targets = Array.from({ length: count }, () => random.integer(vocabSize));
  function isIgnored(row: number): boolean {
    return row % ignoreEvery === 0;
  }

  const rows = uploadRows(device, { count, spare });
  // What lies in padding columns and past the count must not matter.
  const padded = new Float32Array(rows.maximum * stride).fill(NaN);
  logits.forEach((value, i) => {
    if (i % stride < vocabSize) padded[i] = value;
  });
  const [kept, overwritten] = [
    upload(device, padded, [rows.maximum, stride]),
    upload(device, padded, [rows.maximum, stride]),
  ];
  const marked = targets.map((target, row) => isIgnored(row) ? IGNORED_TARGET : target);
  const others = Array.from({ length: first }, () => random.integer(vocabSize));
  const targetTensor = uploadIndices(device, [
    ...others,
    ...marked,
    ...new Array<number>(rows.maximum - count).fill(0),
  ]);
  const losses = [blank(device, [first + rows.maximum]), blank(device, [first + rows.maximum])] as const;
  const gradientScale = 0.25;
  const [evaluated, trained, untouched, gradient] = await run(device, (commands) => {
    recordRows(commands, rows);
    const settings = { rows, first, vocabSize };
    const inputs = { targets: targetTensor };
    crossEntropy(commands, { ...inputs, logits: kept, losses: losses[0] }, {
      ...settings,
      gradientScale: null,
    });
    crossEntropy(commands, { ...inputs, logits: overwritten, losses: losses[1] }, {
      ...settings,
      gradientScale,
    });
  }, [...losses, kept, overwritten]);

  const sizes = { vocabSize, stride };
  const expected = reference.crossEntropy({ logits, targets }, sizes).map((loss, row) =>
    isIgnored(row) ? 0 : loss
  );
  const scale = gradientScale * count; // the reference takes the mean over the rows
  const expectedGradient = reference.crossEntropyBackward({ logits, targets }, { ...sizes, scale })
    .map((value, i) => isIgnored(Math.floor(i / stride)) ? 0 : value);
  assertClose(trained!.subarray(first, first + count), expected, { relative: 1e-6, label: "losses" });
  assertEquals(evaluated, trained);
  assertEquals(untouched, padded);
  assert(trained!.subarray(0, first).every(Number.isNaN), "losses of other rows were written");
  assert(trained!.subarray(first + count).every(Number.isNaN), "losses past the count were written");
  assertClose(gradient!.subarray(0, count * stride), expectedGradient, { relative: 1e-6, label: "gradient" });
  assert(gradient!.subarray(count * stride).every(Number.isNaN), "logits past the count were written");
}

for (const [name, settings] of Object.entries(cases)) {
  const title = `crossEntropy and its gradient match the reference ${name}`;
  gpuTest(title, (device) => checkCase(device, settings));
  gpuTest(`${title}, hardware launch shapes`, (device) => checkCase(asHardware(device), settings));
}

gpuTest("crossEntropy refuses rows that are not whole vectors, too short or without a target", (device) => {
  function record(
    { vocabSize, stride, first = 0 }: { vocabSize: number; stride: number; first?: number },
  ): void {
    const rows = uploadRows(device, { count: 1 });
    const tensors = {
      logits: blank(device, [1, stride]),
      targets: uploadIndices(device, [0]),
      losses: blank(device, [1]),
    };
    crossEntropy(new Commands(device, "test"), tensors, { rows, first, vocabSize, gradientScale: null });
  }
  assertThrows(() => record({ vocabSize: 9, stride: 10 }), TypeError, "a multiple of 4");
  assertThrows(() => record({ vocabSize: 9, stride: 8 }), TypeError, "at least 9 columns");
  const message = "targets has shape (1), expected (2)";
  assertThrows(() => record({ vocabSize: 9, stride: 12, first: 1 }), TypeError, message);
  return Promise.resolve();
});
