/** Numbers to f16 and back: every bit is that of JavaScript's Float16Array. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Commands, type RecordedDispatch } from "../../gpu/commands.ts";
import { workOf } from "../../gpu/cost.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { castToF16, castToF32 } from "../../gpu/kernels/cast.ts";
import { staticRows } from "../../gpu/rows.ts";
import { tensorFrom } from "../../gpu/tensor.ts";
import * as reference from "../reference/cast.ts";
import { blank, blankIndices, gpuTest, run, upload } from "../support/device.ts";
import { recordRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { caseRows, manyRows, type RowCase, rowCases, writtenPart } from "../support/row_cases.ts";

/** What halves hold before a kernel writes them. */
const UNWRITTEN = 0xdeadbeef;

/** Both casts, one after the other, on the rows of a case. */
async function cast(
  device: GpuDevice,
  { values, rowCase }: { values: Float32Array; rowCase: RowCase },
): Promise<{ halves: Uint32Array; back: Float32Array }> {
  const { maximum, dim } = rowCase;
  const rows = caseRows(device, rowCase);
  const x = upload(device, values, [maximum, dim]);
  const data = new Uint32Array(maximum * dim / 2).fill(UNWRITTEN);
  const halves = tensorFrom(device, { data, shape: [maximum, dim / 2], label: "halves" });
  const out = blank(device, [maximum, dim]);
  const [words, back] = await run(device, (commands) => {
    recordRows(commands, rows);
    castToF16(commands, { x, halves }, { rows });
    castToF32(commands, { halves, x: out }, { rows });
  }, [halves, out]);
  return { halves: words as Uint32Array, back: back as Float32Array };
}

for (const rowCase of [...rowCases, manyRows]) {
  gpuTest(`numbers become f16 and f32 again as the reference's do with ${rowCase.name}`, async (device) => {
    const { count, maximum, dim } = rowCase;
    const values = Float32Array.from(createRandom(6).normals(maximum * dim, 100));
    const used = values.subarray(0, count * dim);
    const { halves, back } = await cast(device, { values, rowCase });
    const wanted = reference.castToF16(used);
    assertEquals(halves.subarray(0, wanted.length), wanted);
    assert(halves.subarray(wanted.length).every((word) => word === UNWRITTEN), "rows past the count changed");
    assertEquals(writtenPart(back, used.length), Array.from(reference.castToF32(wanted)));
  });
}

/** Magnitudes around every edge of f16: its subnormal numbers, its ties, its largest number, and what is beyond. */
const magnitudes = [
  0,
  1e-45, // the smallest f32
  2 ** -25, // half of the smallest f16: a tie, to 0
  2 ** -25 * 1.0001,
  2 ** -24,
  1.5 * 2 ** -24, // a tie, up to even
  2.5 * 2 ** -24, // a tie, down to even
  1.4999 * 2 ** -24,
  // Eleven bits would be a tie of fewer: rounded once it goes up, rounded twice down.
  (0.5 + 2 ** -13) * 2 ** -24,
  (4.5 + 2 ** -11) * 2 ** -24,
  2 ** -14 - 2 ** -25, // a tie between the largest subnormal number and the smallest normal one
  2 ** -14 - 2 ** -24,
  2 ** -14,
  2 ** -14 * (1 + 2 ** -11),
  1 / 3,
  1,
  1 + 2 ** -11, // a tie, down to even
  1 + 2 ** -11 + 2 ** -23,
  1 + 3 * 2 ** -11, // a tie, up to even
  1 + 3 * 2 ** -11 - 2 ** -23,
  2 - 2 ** -11, // a tie, up to the next power of two
  2049,
  2051,
  65504,
  65505,
  65519.99609375, // the last f32 below the next
  65520, // a tie between the largest number and what would follow: infinite
  65536,
  1e6,
  3e38,
  Infinity,
  NaN,
];

/** Halves by their bits, so that 0 and -0 differ. NaN has many, and which of them it gets is nobody's promise. */
function bitsOf(words: Uint32Array): number[] {
  return Array.from(
    new Uint16Array(words.slice().buffer),
    (half) => (half & 0x7fff) > 0x7c00 ? 0x7e00 : half,
  );
}

gpuTest("every edge of f16 is rounded as the reference does, in either half of a word", async (device) => {
  const signed = magnitudes.flatMap((value) => [value, -value]);
  for (const numbers of [signed, [1, ...signed]]) {
    const dim = Math.ceil(numbers.length / 4) * 4;
    const values = new Float32Array(dim);
    values.set(numbers);
    const rowCase = { name: "edges", count: 1, maximum: 1, dim };
    const { halves, back } = await cast(device, { values, rowCase });
    const wanted = reference.castToF16(values);
    assertEquals(bitsOf(halves), bitsOf(wanted));
    assertEquals(back, reference.castToF32(wanted));
  }
});

gpuTest("every f16 is an f32 exactly, and the same f16 again", async (device) => {
  const words = Uint32Array.from({ length: 2 ** 15 }, (_, i) => 2 * i | (2 * i + 1) << 16);
  const [count, dim] = [2 ** 10, 2 ** 6];
  const rows = staticRows(device, count);
  const halves = tensorFrom(device, { data: words, shape: [count, dim / 2], label: "halves" });
  const [x, again] = [blank(device, [count, dim]), blankIndices(device, [count, dim / 2])];
  const [values, back] = await run(device, (commands) => {
    castToF32(commands, { halves, x }, { rows });
    castToF16(commands, { x, halves: again }, { rows });
  }, [x, again]);
  assertEquals(values, reference.castToF32(words));
  assertEquals(bitsOf(back as Uint32Array), bitsOf(words));
});

gpuTest("a cast moves six bytes of each number, and refuses rows that do not fit", (device) => {
  const rows = staticRows(device, 7);
  const tensors = { x: blank(device, [7, 12]), halves: blankIndices(device, [7, 6]) };
  const commands = new Commands(device, "costs");
  castToF16(commands, tensors, { rows });
  castToF32(commands, tensors, { rows });
  const works = commands.steps.map((step) =>
    workOf((step as RecordedDispatch).cost!, { count: 5, records: null })
  );
  assertEquals(works, [{ flops: 0, bytes: 5 * 12 * 6 }, { flops: 0, bytes: 5 * 12 * 6 }]);
  const odd = { x: blank(device, [7, 6]), halves: blankIndices(device, [7, 3]) };
  for (const record of [castToF16, castToF32]) {
    assertThrows(
      () => record(commands, odd, { rows }),
      TypeError,
      "rows of 6 columns, expected a multiple of 4",
    );
    const wide = { ...tensors, x: blank(device, [7, 8]) };
    assertThrows(() => record(commands, wide, { rows }), TypeError, "x has shape (7,8), expected (7,12)");
  }
  commands.destroy();
  return Promise.resolve();
});
