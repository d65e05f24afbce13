/** Finding numbers that no weight can be, in the bytes as they are stored. */
import type { NumberFormat } from "./number_formats.ts";

/**
 * Words in which the exponent of each number is all ones exactly if, after masking, adding `step` carries into a bit of
 * `carry`: one test for two numbers of 16 bits.
 */
const WORDS = {
  f32: { mask: 0x7f800000, step: 0x00800000, carry: 0x80000000, bytes: 4 },
  f16: { mask: 0x7c007c00, step: 0x04000400, carry: 0x80008000, bytes: 2 },
  bf16: { mask: 0x7f807f80, step: 0x00800080, carry: 0x80008000, bytes: 2 },
} as const;

/** Bytes of llama.cpp's blocks, the numbers in one, and where its f16 scales lie; the rest are whole numbers. */
const BLOCKS = {
  q8_0: { bytes: 34, numbers: 32, scales: [0] },
  q4_0: { bytes: 18, numbers: 32, scales: [0] },
  q4_1: { bytes: 20, numbers: 32, scales: [0, 2] },
  q4_k: { bytes: 144, numbers: 256, scales: [0, 2] },
  q6_k: { bytes: 210, numbers: 256, scales: [208] },
} as const;

/**
 * Place of the first number that is NaN or infinite, or of the first one of its block; null if there is none.
 *
 * @param bytes Whole numbers or blocks; they start at a multiple of four.
 */
export function firstNonFinite(format: NumberFormat, bytes: Uint8Array<ArrayBuffer>): number | null {
  return format === "f32" || format === "f16" || format === "bf16"
    ? firstOfWords(WORDS[format], bytes)
    : firstOfBlocks(BLOCKS[format], bytes);
}

function firstOfWords(
  { mask, step, carry, bytes: width }: typeof WORDS[keyof typeof WORDS],
  bytes: Uint8Array<ArrayBuffer>,
): number | null {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  let seen = 0;
  // One look at the end costs a third of one a word.
  for (let i = 0; i < words.length; i++) seen |= (words[i]! & mask) + step;
  const hasRest = (bytes.length & 3) > 0;
  if ((seen & carry) === 0 && !hasRest) return null;
  const numbers = width === 4 ? words : new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length >> 1);
  const exponent = width === 4 ? mask : mask & 0xffff;
  const place = numbers.findIndex((number) => (number & exponent) === exponent);
  return place < 0 ? null : place;
}

function firstOfBlocks(
  { bytes: width, numbers, scales }: typeof BLOCKS[keyof typeof BLOCKS],
  bytes: Uint8Array<ArrayBuffer>,
): number | null {
  const exponent = WORDS.f16.mask >> 24;
  for (let block = 0; block * width < bytes.length; block++) {
    // The second byte of a little-endian f16 holds its exponent.
    if (scales.some((scale) => (bytes[block * width + scale + 1]! & exponent) === exponent)) {
      return block * numbers;
    }
  }
  return null;
}
