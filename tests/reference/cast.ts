/** Numbers in f16, two to a word of 32 bits, the first in its low half; JavaScript's own conversion, to nearest even. */

/** The words of an even number of f32 numbers. */
export function castToF16(x: Float32Array): Uint32Array<ArrayBuffer> {
  return new Uint32Array(Float16Array.from(x).buffer);
}

/** The numbers of words. */
export function castToF32(halves: Uint32Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  return Float32Array.from(new Float16Array(halves.buffer));
}
