/** Data to time kernels on: numbers that look random, the same each time. */
import type { Allocator } from "../memory.ts";
import { blockPackets, createPackedMatrix, type PackedMatrix, PANEL_ROWS } from "../packed_matrix.ts";
import { elementCount, type Tensor, tensorFrom, writeTensor } from "../tensor.ts";

/** Numbers from -1 to 1 that look random, the same each time for a seed. */
export function randomTensor(scope: Allocator, shape: readonly number[], seed: number): Tensor {
  const data = Float32Array.from(
    { length: elementCount(shape) },
    (_, i) => (scramble(i, seed) | 0) / 2 ** 31,
  );
  return tensorFrom(scope, { data, shape, label: "random numbers" });
}

/** Random bytes in blocks of scale 1 / 16. */
export function randomPacked(scope: Allocator, shape: readonly [number, number]): PackedMatrix {
  const matrix = createPackedMatrix(scope, { format: "q8_0", shape, label: "random blocks" });
  const blockWords = 4 * blockPackets("q8_0");
  // The last packets of a block are its scales, two f16 to a word.
  const scales = blockWords - PANEL_ROWS / 2;
  const words = Uint32Array.from(
    { length: elementCount(matrix.words.shape) },
    (_, i) => i % blockWords < scales ? scramble(i, 2) : 0x2c00_2c00,
  );
  writeTensor(scope, matrix.words, words);
  return matrix;
}

/** A number mixed until every bit depends on every other (the finalizer of MurmurHash3). */
function scramble(index: number, seed: number): number {
  let mixed = index + Math.imul(seed, 0x9e3779b9);
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}
