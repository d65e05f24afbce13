/**
 * llama.cpp's packed numbers: blocks that share one or two f16 scales, all little-endian. The layouts are those of
 * ggml-common.h, the arithmetic that of ggml-quants.c; results are theirs to the bit.
 *
 * Decoding multiplies in float64 and rounds what it stores. That is f32 arithmetic all the same: scales have 11 bits and
 * small factors, so the products are exact and each number is rounded once. Encoding rounds every step to f32.
 */

/** A block's numbers, and how many bytes they take. */
export interface BlockSize {
  readonly numbers: number;
  readonly bytes: number;
}

/** Numbers in a block of q8_0, q4_0 and q4_1. */
const SMALL = 32;
/** Numbers in a block of q4_k and q6_k. */
const LARGE = 256;

export const Q8_0: BlockSize = { numbers: SMALL, bytes: 34 };
export const Q4_0: BlockSize = { numbers: SMALL, bytes: 18 };
export const Q4_1: BlockSize = { numbers: SMALL, bytes: 20 };
export const Q4_K: BlockSize = { numbers: LARGE, bytes: 144 };
export const Q6_K: BlockSize = { numbers: LARGE, bytes: 210 };

/** Every block has its scales at even places. */
function halves(bytes: Uint8Array<ArrayBuffer>): Float16Array<ArrayBuffer> {
  return new Float16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
}

function signed(bytes: Uint8Array<ArrayBuffer>): Int8Array<ArrayBuffer> {
  return new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Scale d, 32 signed bytes q: x = d q. */
export function decodeQ8_0(bytes: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  const [scales, values] = [halves(bytes), signed(bytes)];
  for (let start = 0, n = 0; n < out.length; start += Q8_0.bytes) {
    const d = scales[start / 2]!;
    for (let i = start + 2; i < start + Q8_0.bytes; i++) out[n++] = d * values[i]!;
  }
}

/** Scale d, 16 bytes with q of numbers 0..15 in their low halves and 16..31 in their high ones: x = d (q - 8). */
export function decodeQ4_0(bytes: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  const scales = halves(bytes);
  for (let start = 0, n = 0; n < out.length; start += Q4_0.bytes, n += SMALL) {
    const d = scales[start / 2]!;
    for (let i = 0; i < 16; i++) {
      const pair = bytes[start + 2 + i]!;
      out[n + i] = d * ((pair & 15) - 8);
      out[n + 16 + i] = d * ((pair >> 4) - 8);
    }
  }
}

/** Scale d, minimum m, 16 bytes of q as in q4_0: x = d q + m. */
export function decodeQ4_1(bytes: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  const scales = halves(bytes);
  for (let start = 0, n = 0; n < out.length; start += Q4_1.bytes, n += SMALL) {
    const [d, m] = [scales[start / 2]!, scales[start / 2 + 1]!];
    for (let i = 0; i < 16; i++) {
      const pair = bytes[start + 4 + i]!;
      out[n + i] = d * (pair & 15) + m;
      out[n + 16 + i] = d * (pair >> 4) + m;
    }
  }
}

/**
 * Scales d and m, then for each 32 numbers a 6-bit scale s and a 6-bit minimum u (12 bytes), then 128 bytes of q, each
 * 32 of them with 32 numbers in their low halves and the next 32 in their high ones: x = d s q - m u.
 */
export function decodeQ4_K(bytes: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  const scales = halves(bytes);
  for (let start = 0, n = 0; n < out.length; start += Q4_K.bytes, n += LARGE) {
    const [d, m] = [scales[start / 2]!, scales[start / 2 + 1]!];
    for (let group = 0; group < 8; group++) {
      const packed = start + 4 + group;
      // The first four groups keep six bits in one byte; the others' upper two bits fill those bytes' tops.
      const s = group < 4
        ? bytes[packed]! & 63
        : (bytes[packed + 4]! & 15) | ((bytes[packed - 4]! >> 6) << 4);
      const u = group < 4
        ? bytes[packed + 4]! & 63
        : (bytes[packed + 4]! >> 4) | ((bytes[packed]! >> 6) << 4);
      const [scale, minimum, shift] = [d * s, m * u, 4 * (group & 1)];
      const values = start + 16 + SMALL * (group >> 1);
      for (let i = 0; i < SMALL; i++) {
        out[n + SMALL * group + i] = scale * ((bytes[values + i]! >> shift) & 15) - minimum;
      }
    }
  }
}

/**
 * 128 bytes with the lower four bits of q, 64 with the upper two, 16 signed scales s, scale d: x = d s (q - 32).
 * Each half of 128 numbers is four runs of 32, which share 64 lower and 32 upper bytes.
 */
export function decodeQ6_K(bytes: Uint8Array<ArrayBuffer>, out: Float32Array): void {
  const [scales, small] = [halves(bytes), signed(bytes)];
  for (let start = 0, n = 0; n < out.length; start += Q6_K.bytes, n += LARGE) {
    const d = scales[(start + 208) / 2]!;
    for (let run = 0; run < 8; run++) {
      const [half, quarter] = [run >> 2, run & 3];
      const lower = start + 64 * half + SMALL * (quarter & 1);
      const upper = start + 128 + SMALL * half;
      for (let i = 0; i < SMALL; i++) {
        const q = ((bytes[lower + i]! >> (4 * (quarter >> 1))) & 15) |
          (((bytes[upper + i]! >> (2 * quarter)) & 3) << 4);
        out[n + SMALL * run + i] = d * small[start + 192 + 2 * run + (i >> 4)]! * (q - 32);
      }
    }
  }
}

/** d = max |x| / 127, q = x / d rounded, halves away from zero; d is rounded to f16 afterwards. */
export function encodeQ8_0(values: Float32Array, bytes: Uint8Array<ArrayBuffer>): void {
  const [scales, out] = [halves(bytes), signed(bytes)];
  for (let n = 0, start = 0; n < values.length; n += SMALL, start += Q8_0.bytes) {
    let largest = 0;
    for (let i = n; i < n + SMALL; i++) largest = Math.max(largest, Math.abs(values[i]!));
    const d = Math.fround(largest / 127);
    const inverse = inverseOf(d);
    scales[start / 2] = d;
    for (let i = 0; i < SMALL; i++) {
      // In integers, because a branch on the sign, which is random, costs more than all the rest.
      const doubled = 2 * Math.fround(values[n + i]! * inverse) | 0;
      out[start + 2 + i] = (doubled + 1 + (doubled >> 31)) >> 1;
    }
  }
}

/** d = x / -8 of the x with the largest |x| (the first of equals), q = x / d + 8 rounded, 15 at most. */
export function encodeQ4_0(values: Float32Array, bytes: Uint8Array<ArrayBuffer>): void {
  const scales = halves(bytes);
  for (let n = 0, start = 0; n < values.length; n += SMALL, start += Q4_0.bytes) {
    let largest = 0;
    for (let i = n; i < n + SMALL; i++) {
      if (Math.abs(values[i]!) > Math.abs(largest)) largest = values[i]!;
    }
    const d = Math.fround(largest / -8);
    const inverse = inverseOf(d);
    scales[start / 2] = d;
    for (let i = 0; i < 16; i++) {
      bytes[start + 2 + i] = nibble(values[n + i]! * inverse) | (nibble(values[n + 16 + i]! * inverse) << 4);
    }
  }
}

/** Infinite where |d| is below 2^-128: such blocks become zeros, as f16 scales cannot hold their d anyway. */
function inverseOf(d: number): number {
  return d === 0 ? 0 : Math.fround(1 / d);
}

function nibble(x: number): number {
  return Math.min(15, Math.fround(Math.fround(x) + 8.5) | 0);
}
