/** How a weight's numbers are stored: plain, or in llama.cpp's packed blocks. */
import {
  type BlockSize,
  decodeQ4_0,
  decodeQ4_1,
  decodeQ4_K,
  decodeQ6_K,
  decodeQ8_0,
  encodeQ4_0,
  encodeQ8_0,
  Q4_0,
  Q4_1,
  Q4_K,
  Q6_K,
  Q8_0,
} from "./block_formats.ts";

/** Plain numbers, or llama.cpp's blocks under its names. */
export type NumberFormat = "f32" | "f16" | "bf16" | "q8_0" | "q4_0" | "q4_1" | "q4_k" | "q6_k";

interface Format extends BlockSize {
  /** Fills `out`; `bytes` start at a multiple of four. */
  readonly decode: (bytes: Uint8Array<ArrayBuffer>, out: Float32Array) => void;
}

const FORMATS: Readonly<Record<NumberFormat, Format>> = {
  f32: { numbers: 1, bytes: 4, decode: decodeF32 },
  f16: { numbers: 1, bytes: 2, decode: decodeF16 },
  bf16: { numbers: 1, bytes: 2, decode: decodeBf16 },
  q8_0: { ...Q8_0, decode: decodeQ8_0 },
  q4_0: { ...Q4_0, decode: decodeQ4_0 },
  q4_1: { ...Q4_1, decode: decodeQ4_1 },
  q4_k: { ...Q4_K, decode: decodeQ4_K },
  q6_k: { ...Q6_K, decode: decodeQ6_K },
};

/** Formats that can be written, with the magnitude from which f16 (number or scale) rounds to infinity. */
const OVERFLOW = { f32: Infinity, f16: 65520, q8_0: 65520 * 127, q4_0: 65520 * 8 } as const;

/** Formats that `encodeNumbers` writes. */
export type EncodedFormat = keyof typeof OVERFLOW;

/** Numbers of a row that are stored together; rows are whole blocks. */
export function blockLength(format: NumberFormat): number {
  return FORMATS[format].numbers;
}

/**
 * Bytes of a row of `columns` numbers.
 *
 * @throws RangeError when the row is not a whole number of blocks.
 */
export function rowBytes(format: NumberFormat, columns: number): number {
  const { numbers, bytes } = FORMATS[format];
  if (columns % numbers !== 0) {
    throw new RangeError(
      `Cannot store rows of ${columns} numbers as ${format}, wanted a multiple of ${numbers}`,
    );
  }
  return columns / numbers * bytes;
}

/**
 * The numbers of any whole number of blocks, in memory of their own.
 *
 * @throws RangeError when the bytes end inside a block.
 */
export function decodeNumbers(
  format: NumberFormat,
  bytes: Uint8Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  const block = FORMATS[format];
  if (bytes.length % block.bytes !== 0) {
    throw new RangeError(
      `Cannot read ${bytes.length} bytes as ${format}, wanted a multiple of ${block.bytes}`,
    );
  }
  const out = new Float32Array(bytes.length / block.bytes * block.numbers);
  block.decode(bytes.byteOffset % 4 === 0 ? bytes : bytes.slice(), out);
  return out;
}

/**
 * Stores numbers, rounded to nearest: f16 to even in the middle, packed formats as llama.cpp's quantize_row_q8_0_ref and
 * quantize_row_q4_0_ref.
 *
 * @throws RangeError for an incomplete block, and for a NaN or a number beyond the format's range unless it is f32.
 */
export function encodeNumbers(
  format: EncodedFormat,
  values: Float32Array,
): Uint8Array<ArrayBuffer> {
  if (format === "f32") return new Uint8Array(values.slice().buffer);
  const bytes = new Uint8Array(rowBytes(format, values.length));
  checkRange(format, values);
  if (format === "f16") new Float16Array(bytes.buffer).set(values);
  else if (format === "q8_0") encodeQ8_0(values, bytes);
  else encodeQ4_0(values, bytes);
  return bytes;
}

function checkRange(format: EncodedFormat, values: Float32Array): void {
  const end = OVERFLOW[format];
  for (let i = 0; i < values.length; i++) {
    if (!(Math.abs(values[i]!) < end)) {
      throw new RangeError(
        `Cannot store ${values[i]} as ${format}, wanted magnitudes below ${end}; keep f32`,
      );
    }
  }
}

function decodeF32(bytes: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  out.set(new Float32Array(bytes.buffer, bytes.byteOffset, out.length));
}

function decodeF16(bytes: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  const halves = new Float16Array(bytes.buffer, bytes.byteOffset, out.length);
  // Five times as fast as `out.set(halves)`.
  for (let i = 0; i < out.length; i++) out[i] = halves[i]!;
}

/** The upper half of an f32. */
function decodeBf16(bytes: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  const halves = new Uint16Array(bytes.buffer, bytes.byteOffset, out.length);
  const bits = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < out.length; i++) bits[i] = halves[i]! << 16;
}
