/**
 * Weight matrices in fewer bits, as the kernels read them: half precision, or blocks of 32 numbers along a row that share
 * a scale (the `q8_0` and `q4_0` of GGUF files).
 *
 * A row is a whole number of vec4<u32>, so that any run of rows can be read, gathered or bound by itself:
 *
 *   f16   two numbers to a word, the first in the low half
 *   q8_0  the scales of the row's blocks, f16, filled up to a vec4; then 8 words a block, four signed bytes each
 *   q4_0  the scales likewise; then 4 words a block: byte j holds number j in its low half, number j + 16 in its high
 *         half, both plus 8
 */
import type { GpuDevice } from "./device.ts";
import type { Allocator } from "./memory.ts";
import { createTensor, ELEMENT_BYTES, type Tensor, viewTensor, writeTensor } from "./tensor.ts";

export const PACKED_FORMATS = ["f16", "q8_0", "q4_0"] as const;
export type PackedFormat = typeof PACKED_FORMATS[number];

/** Numbers that share a scale; rows are a whole number of blocks, in f16 too. */
export const BLOCK_LENGTH = 32;

/** A matrix (N, K) that is not f32. */
export interface PackedMatrix {
  readonly format: PackedFormat;
  readonly shape: readonly [rows: number, columns: number];
  /** (N, words of a row) u32. */
  readonly words: Tensor;
}

/** A weight matrix (N, K) as products take it. */
export type Matrix = Tensor | PackedMatrix;

export function isPacked(matrix: Matrix): matrix is PackedMatrix {
  return "format" in matrix;
}

/** Words of a row, and how many of them come before its blocks. */
export interface PackedRow {
  readonly words: number;
  readonly scaleWords: number;
}

/** Bytes of a block in a file: its scale, then its numbers. */
const BLOCK_BYTES = {
  f16: { scale: 0, values: 64 },
  q8_0: { scale: 2, values: 32 },
  q4_0: { scale: 2, values: 16 },
};

/** @throws TypeError for rows that are not whole blocks. */
export function packedRow(format: PackedFormat, columns: number): PackedRow {
  if (columns % BLOCK_LENGTH !== 0) {
    throw new TypeError(
      `Cannot pack rows of ${columns} numbers as ${format}: not a multiple of ${BLOCK_LENGTH}`,
    );
  }
  const blocks = columns / BLOCK_LENGTH;
  const { scale, values } = BLOCK_BYTES[format];
  const scaleWords = Math.ceil((blocks * scale) / 16) * 4;
  return { scaleWords, words: scaleWords + (blocks * values) / 4 };
}

/** A zeroed packed matrix in a buffer of its own. */
export function createPackedMatrix(
  device: Allocator,
  { format, shape, label }: { format: PackedFormat; shape: readonly [number, number]; label: string },
): PackedMatrix {
  const { words } = packedRow(format, shape[1]);
  return { format, shape, words: createTensor(device, { shape: [shape[0], words], dtype: "u32", label }) };
}

/**
 * Writes rows from `start` on, given as files hold them: blocks one after the other, each with its scale before its
 * numbers.
 *
 * @throws RangeError for rows past the matrix's end.
 */
export function writePackedRows(
  device: Allocator,
  matrix: PackedMatrix,
  { start, bytes }: { start: number; bytes: Uint8Array<ArrayBuffer> },
): void {
  const packed = packRows(bytes, matrix);
  const words = matrix.words.shape[1]!;
  writeTensor(device, viewTensor(matrix.words, { start: start * words, shape: [packed.length] }), packed);
}

/** Rows as files hold them to rows as kernels read them. */
function packRows(
  bytes: Uint8Array<ArrayBuffer>,
  { format, shape: [, columns] }: PackedMatrix,
): Uint32Array<ArrayBuffer> {
  const { scale, values } = BLOCK_BYTES[format];
  if (scale === 0) return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const { words, scaleWords } = packedRow(format, columns);
  const blocks = columns / BLOCK_LENGTH;
  const rows = bytes.length / (blocks * (scale + values));
  const packed = new Uint8Array(rows * words * 4);
  for (let row = 0, from = 0; row < rows; row++) {
    const scales = row * words * 4;
    const numbers = scales + scaleWords * 4;
    for (let block = 0; block < blocks; block++, from += scale + values) {
      packed[scales + 2 * block] = bytes[from]!;
      packed[scales + 2 * block + 1] = bytes[from + 1]!;
      const to = numbers + block * values;
      for (let i = 0; i < values; i++) packed[to + i] = bytes[from + scale + i]!;
    }
  }
  return new Uint32Array(packed.buffer);
}

/** Bytes that a matrix takes on the device. */
export function matrixBytes(matrix: Matrix): number {
  const { shape } = isPacked(matrix) ? matrix.words : matrix;
  return shape[0]! * shape[1]! * ELEMENT_BYTES;
}

/** The tensor behind a matrix. */
export function matrixTensor(matrix: Matrix): Tensor {
  return isPacked(matrix) ? matrix.words : matrix;
}

/** Rows of a matrix, sharing its memory. */
export interface RowWindow<M extends Matrix> {
  readonly matrix: M;
  /** The first row's place in the whole matrix. */
  readonly start: number;
  readonly count: number;
}

/** Windows start at multiples of this many rows, so that they, and the columns that they make, can be bound. */
const WINDOW_ROWS = 64;

/**
 * A matrix in runs of rows that the adapter can bind at once: one, unless it is large (128 MiB on software adapters).
 */
export function rowWindows<M extends Matrix>(device: GpuDevice, matrix: M): RowWindow<M>[] {
  const [rows] = matrix.shape as [number, number];
  const rowBytes = matrixBytes(matrix) / rows;
  const limit = device.limits.maxStorageBufferBindingSize;
  if (matrixBytes(matrix) <= limit) return [{ matrix, start: 0, count: rows }];
  const step = Math.floor(limit / rowBytes / WINDOW_ROWS) * WINDOW_ROWS;
  return Array.from({ length: Math.ceil(rows / step) }, (_, i) => {
    const start = i * step;
    const count = Math.min(step, rows - start);
    return { matrix: viewRows(matrix, { start, count }), start, count };
  });
}

/** Some rows of a matrix, sharing its memory. */
export function viewRows<M extends Matrix>(
  matrix: M,
  { start = 0, count, label }: { start?: number; count: number; label?: string },
): M {
  const tensor = matrixTensor(matrix);
  const width = tensor.shape[1]!;
  const view = viewTensor(tensor, { start: start * width, shape: [count, width], ...(label && { label }) });
  return (isPacked(matrix) ? { ...matrix, shape: [count, matrix.shape[1]], words: view } : view) as M;
}
