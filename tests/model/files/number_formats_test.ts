import { assertEquals, assertThrows } from "@std/assert";
import {
  blockLength,
  decodeNumbers,
  encodeNumbers,
  type NumberFormat,
  rowBytes,
} from "../../../model/files/number_formats.ts";
import { numberCases, numbersOf } from "../../support/number_cases.ts";

const fixtures = new URL("../../../fixtures/formats/", import.meta.url);

function readJson<T>(name: string): Record<string, T> {
  return JSON.parse(Deno.readTextFileSync(new URL(name, fixtures)));
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** Bits tell zeros of either sign apart. */
function bitsOf(values: Float32Array<ArrayBuffer>): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

const packed = readJson<Record<"f32" | "f16" | "q8_0" | "q4_0", string>>("packed.json");
const blocks = readJson<{ bytes: string; values: string }>("blocks.json");

for (const name of Object.keys(numberCases)) {
  Deno.test(`encodeNumbers makes llama.cpp's bytes of ${name}`, async () => {
    const values = numbersOf(name);
    for (const [format, wanted] of Object.entries(packed[name]!)) {
      const bytes = encodeNumbers(format as "f32" | "f16" | "q8_0" | "q4_0", values);
      assertEquals(await sha256(bytes), wanted, `${name} as ${format}`);
    }
  });
}

for (const [format, { bytes, values }] of Object.entries(blocks)) {
  Deno.test(`decodeNumbers makes llama.cpp's numbers of ${format}`, () => {
    const wanted = new Float32Array(Uint8Array.fromHex(values).buffer);
    const stored = Uint8Array.fromHex(bytes);
    assertEquals(bitsOf(decodeNumbers(format as NumberFormat, stored)), bitsOf(wanted));
    // A view that is not aligned to anything.
    const shifted = new Uint8Array([0, ...stored]).subarray(1);
    assertEquals(bitsOf(decodeNumbers(format as NumberFormat, shifted)), bitsOf(wanted));
  });
}

Deno.test("every f16 survives decoding and encoding", () => {
  const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((bits) =>
    (bits & 0x7c00) !== 0x7c00
  );
  const bytes = new Uint8Array(patterns.buffer);
  const values = decodeNumbers("f16", bytes);
  // 2^-14 and its half, the largest number, one third rounded to ten bits after the point.
  assertEquals([0x0400, 0x0200, 0x7bff, 0x3555].map((bits) => values[bits]), [
    2 ** -14,
    2 ** -15,
    65504,
    1365 / 4096,
  ]);
  assertEquals(encodeNumbers("f16", values), bytes);
});

Deno.test("encodeNumbers rounds f16 to nearest, to even in the middle", () => {
  const halves: [x: number, wanted: number][] = [
    [2049, 2048],
    [2051, 2052],
    [2049.001, 2050],
    [65519.99, 65504],
    [2 ** -25, 0],
    [2 ** -25 * 1.001, 2 ** -24],
    [-3 * 2 ** -25, -(2 ** -23)],
  ];
  for (const [x, wanted] of halves) {
    assertEquals(decodeNumbers("f16", encodeNumbers("f16", Float32Array.of(x))), Float32Array.of(wanted));
  }
});

Deno.test("bf16 and f32 keep infinities and NaN, f32 owns its memory", () => {
  const bits = Uint16Array.of(0x3fc0, 0x7f80, 0xff80, 0x7fc0, 0x8000);
  const values = decodeNumbers("bf16", new Uint8Array(bits.buffer));
  assertEquals(values, Float32Array.of(1.5, Infinity, -Infinity, NaN, -0));
  const bytes = encodeNumbers("f32", values);
  const copy = decodeNumbers("f32", bytes);
  values.fill(0);
  bytes.fill(0);
  assertEquals(copy, Float32Array.of(1.5, Infinity, -Infinity, NaN, -0));
  assertEquals(encodeNumbers("f32", copy.subarray(0, 1)), new Uint8Array(Float32Array.of(1.5).buffer));
});

Deno.test("q8_0 and q4_0 are as near to the numbers as their steps allow", () => {
  const values = numbersOf("even spread");
  for (const [format, steps] of [["q8_0", 127], ["q4_0", 8]] as const) {
    const decoded = decodeNumbers(format, encodeNumbers(format, values));
    const worst = values.reduce((max, x, i) => Math.max(max, Math.abs(x - decoded[i]!)), 0);
    // Half a step; the largest positive number of q4_0 is a whole one off; f16 scales are 2^-11 off.
    const bound = (format === "q4_0" ? 1 : 0.5) / steps + 2 ** -11;
    assertEquals(worst <= bound, true, `${format} is off by ${worst}`);
  }
});

Deno.test("rowBytes counts whole blocks", () => {
  const widths: [NumberFormat, columns: number, bytes: number][] = [
    ["f32", 3, 12],
    ["f16", 3, 6],
    ["bf16", 1, 2],
    ["q8_0", 64, 68],
    ["q4_0", 32, 18],
    ["q4_1", 96, 60],
    ["q4_k", 256, 144],
    ["q6_k", 512, 420],
    ["q4_0", 0, 0],
  ];
  for (const [format, columns, bytes] of widths) assertEquals(rowBytes(format, columns), bytes, format);
  assertEquals([blockLength("bf16"), blockLength("q4_1"), blockLength("q6_k")], [1, 32, 256]);
  assertThrows(
    () => rowBytes("q4_k", 32),
    RangeError,
    "Cannot store rows of 32 numbers as q4_k, wanted a multiple of 256",
  );
});

Deno.test("no numbers take no bytes", () => {
  for (const format of ["f32", "f16", "q8_0", "q4_0"] as const) {
    assertEquals(encodeNumbers(format, new Float32Array(0)), new Uint8Array(0));
    assertEquals(decodeNumbers(format, new Uint8Array(0)), new Float32Array(0));
  }
});

Deno.test("incomplete blocks are refused", () => {
  assertThrows(
    () => decodeNumbers("q6_k", new Uint8Array(209)),
    RangeError,
    "Cannot read 209 bytes as q6_k, wanted a multiple of 210",
  );
  assertThrows(
    () => encodeNumbers("q8_0", new Float32Array(31)),
    RangeError,
    "Cannot store rows of 31 numbers as q8_0, wanted a multiple of 32",
  );
});

Deno.test("encodeNumbers refuses what would become infinite", () => {
  const largest = { f16: 65519.99, q8_0: 8321039.5, q4_0: 524159.97 } as const;
  for (const format of ["f16", "q8_0", "q4_0"] as const) {
    const values = new Float32Array(32);
    values[7] = largest[format];
    assertEquals(decodeNumbers(format, encodeNumbers(format, values)).every(Number.isFinite), true);
    for (const x of [values[7]! * 1.0000002, -Infinity, NaN]) {
      values[7] = x;
      assertThrows(
        () => encodeNumbers(format, values),
        RangeError,
        `Cannot store ${values[7]} as ${format}, wanted`,
      );
    }
  }
});
