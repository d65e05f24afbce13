/**
 * Weight matrices in fewer bits, as the kernels read them: half precision, or blocks of 32 numbers along a row that share
 * a scale (the `q8_0` and `q4_0` of GGUF files).
 *
 * Rows lie in panels of 32, a panel block after block, so that the lanes of a product, which own rows, read one stream
 * (measured on lavapipe: a product with q4_0 rows one after the other takes 2.4 times as long). Of a block a panel has
 * packets of 16 bytes, the first of each row, then the second...; then the scales, f16, if there are any:
 *
 *   f16   4 packets of 8 numbers
 *   q8_0  2 packets of 16 signed bytes; scales
 *   q4_0  1 packet of 32 numbers plus 8: byte j holds number j in its low half, number j + 16 in its high half; scales
 *
 * Scales stand in the order of rows 0, 8, 16, 24, 1, 9, 17, 25, 2...
 */
import type { GpuDevice } from "./device.ts";
import type { Allocator } from "./memory.ts";
import { createTensor, ELEMENT_BYTES, type Tensor, viewTensor, writeTensor } from "./tensor.ts";

export const PACKED_FORMATS = ["f16", "q8_0", "q4_0"] as const;
export type PackedFormat = typeof PACKED_FORMATS[number];

/** Numbers that share a scale; rows are a whole number of blocks, in f16 too. */
export const BLOCK_LENGTH = 32;

/** Rows of a panel. */
export const PANEL_ROWS = 32;

const PACKET_BYTES = 16;

/** Bytes of a row's block in a file: its scale, then its numbers. */
const BLOCK_BYTES = {
  f16: { scale: 0, numbers: 64 },
  q8_0: { scale: 2, numbers: 32 },
  q4_0: { scale: 2, numbers: 16 },
};

/** A matrix (N, K) that is not f32. */
export interface PackedMatrix {
  readonly format: PackedFormat;
  readonly shape: readonly [rows: number, columns: number];
  /** (panels, words of a panel) u32; rows that the last panel has too many are zero. */
  readonly words: Tensor;
}

/** A weight matrix (N, K) as products take it. */
export type Matrix = Tensor | PackedMatrix;

export function isPacked(matrix: Matrix): matrix is PackedMatrix {
  return "format" in matrix;
}

/** Packets of 16 bytes in a panel's block. */
export function blockPackets(format: PackedFormat): number {
  const { scale, numbers } = BLOCK_BYTES[format];
  return (PANEL_ROWS * (scale + numbers)) / PACKET_BYTES;
}

/** A zeroed packed matrix in a buffer of its own. @throws TypeError for rows that are not whole blocks. */
export function createPackedMatrix(
  device: Allocator,
  { format, shape, label }: { format: PackedFormat; shape: readonly [number, number]; label: string },
): PackedMatrix {
  const [rows, columns] = shape;
  if (columns % BLOCK_LENGTH !== 0) {
    throw new TypeError(
      `Cannot pack rows of ${columns} numbers as ${format}: not a multiple of ${BLOCK_LENGTH}`,
    );
  }
  const panelWords = ((columns / BLOCK_LENGTH) * blockPackets(format) * PACKET_BYTES) / ELEMENT_BYTES;
  const panels = Math.ceil(rows / PANEL_ROWS);
  return { format, shape, words: createTensor(device, { shape: [panels, panelWords], dtype: "u32", label }) };
}

/** Fills a packed matrix, row after row; what rows are left at the end stay zero. */
export class PackedWriter {
  readonly #device: Allocator;
  readonly #matrix: PackedMatrix;
  /** The panel that rows are put into. */
  readonly #panel: Uint8Array<ArrayBuffer>;
  #row = 0;

  constructor(device: Allocator, matrix: PackedMatrix) {
    this.#device = device;
    this.#matrix = matrix;
    this.#panel = new Uint8Array(matrix.words.shape[1]! * ELEMENT_BYTES);
  }

  /**
   * Adds whole rows, given as files hold them: blocks one after the other, each with its scale before its numbers.
   *
   * @throws RangeError for more rows than the matrix has.
   */
  write(bytes: Uint8Array<ArrayBuffer>): void {
    const { format, shape: [rows, columns] } = this.#matrix;
    const { scale, numbers } = BLOCK_BYTES[format];
    const blocks = columns / BLOCK_LENGTH;
    for (let from = 0; from < bytes.length;) {
      if (this.#row === rows) throw new RangeError(`Cannot write more than ${rows} rows to a packed matrix`);
      const row = this.#row % PANEL_ROWS;
      for (let block = 0; block < blocks; block++, from += scale + numbers) {
        this.#place(bytes, { from, row, block });
      }
      this.#row++;
      if (this.#row % PANEL_ROWS === 0) this.#flush();
    }
  }

  /** Writes the last rows, which need not fill their panel. */
  end(): void {
    if (this.#row % PANEL_ROWS !== 0) this.#flush();
  }

  #place(bytes: Uint8Array, { from, row, block }: { from: number; row: number; block: number }): void {
    const { format } = this.#matrix;
    const { scale, numbers } = BLOCK_BYTES[format];
    const panel = this.#panel;
    const start = block * blockPackets(format) * PACKET_BYTES;
    for (let i = 0; i < numbers; i++) {
      const packet = (i >> 4) * PANEL_ROWS + row;
      panel[start + packet * PACKET_BYTES + (i & 15)] = bytes[from + scale + i]!;
    }
    if (scale === 0) return;
    const place = start + PANEL_ROWS * numbers + 2 * ((row % 8) * 4 + (row >> 3));
    panel[place] = bytes[from]!;
    panel[place + 1] = bytes[from + 1]!;
  }

  #flush(): void {
    const words = new Uint32Array(this.#panel.buffer);
    const start = Math.floor((this.#row - 1) / PANEL_ROWS) * words.length;
    writeTensor(this.#device, viewTensor(this.#matrix.words, { start, shape: [words.length] }), words);
    this.#panel.fill(0);
  }
}

/** Bytes that a matrix takes on the device. */
export function matrixBytes(matrix: Matrix): number {
  const { shape } = matrixTensor(matrix);
  return shape[0]! * shape[1]! * ELEMENT_BYTES;
}

/** Bytes of a row of a matrix. */
export function matrixRowBytes(matrix: Matrix): number {
  const width = matrixTensor(matrix).shape[1]! * ELEMENT_BYTES;
  return isPacked(matrix) ? width / PANEL_ROWS : width;
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
const WINDOW_ROWS = 128;

/**
 * A matrix in runs of rows that the adapter can bind at once: one, unless it is large (128 MiB on software adapters).
 */
export function rowWindows<M extends Matrix>(device: GpuDevice, matrix: M): RowWindow<M>[] {
  const [rows] = matrix.shape as [number, number];
  const limit = device.limits.maxStorageBufferBindingSize;
  if (matrixBytes(matrix) <= limit) return [{ matrix, start: 0, count: rows }];
  const step = Math.floor(limit / (matrixRowBytes(matrix) * WINDOW_ROWS)) * WINDOW_ROWS;
  return Array.from({ length: Math.ceil(rows / step) }, (_, i) => {
    const start = i * step;
    const count = Math.min(step, rows - start);
    return { matrix: viewRows(matrix, { start, count }), start, count };
  });
}

/**
 * Some rows of a matrix, sharing its memory.
 *
 * @throws RangeError for packed rows that do not start with a panel.
 */
export function viewRows<M extends Matrix>(
  matrix: M,
  { start = 0, count, label }: { start?: number; count: number; label?: string },
): M {
  const named = label === undefined ? {} : { label };
  if (!isPacked(matrix)) {
    const width = matrix.shape[1]!;
    return viewTensor(matrix, { start: start * width, shape: [count, width], ...named }) as M;
  }
  if (start % PANEL_ROWS !== 0) {
    throw new RangeError(`Cannot view packed rows from ${start} on: panels have ${PANEL_ROWS} rows`);
  }
  const { words, shape: [, columns] } = matrix;
  const panelWords = words.shape[1]!;
  const shape = [Math.ceil(count / PANEL_ROWS), panelWords];
  const view = viewTensor(words, { start: (start / PANEL_ROWS) * panelWords, shape, ...named });
  return { ...matrix, shape: [count, columns], words: view };
}
