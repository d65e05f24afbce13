/**
 * Packed rows: which rows of a (B * T, C) state a kernel works on, sequence by sequence, positions ascending.
 *
 * One record of four u32 per packed row, `packing` in the kernels:
 * x the row's index in the state; y its position in its sequence; z, w the range [z, w) of packed rows that belong to
 * the same sequence. Packed order is causal order: a row may attend to z..itself.
 */
import type { Allocator } from "./memory.ts";
import { dynamicRows, type Rows, staticRows } from "./rows.ts";
import { createTensor, type Tensor, tensorFrom } from "./tensor.ts";

export interface Packing {
  readonly rows: Rows;
  /** (rows.maximum, 4) u32. */
  readonly records: Tensor;
}

/** Records of the first `length` tokens of each sequence; sequence b has state rows from b * tokens on. */
export function fullRecords(
  { sequences, tokens, length = tokens }: { sequences: number; tokens: number; length?: number },
): Uint32Array<ArrayBuffer> {
  const records = new Uint32Array(sequences * length * 4);
  for (let row = 0; row < sequences * length; row++) {
    const sequence = Math.floor(row / length);
    const position = row % length;
    records.set(
      [sequence * tokens + position, position, sequence * length, (sequence + 1) * length],
      row * 4,
    );
  }
  return records;
}

/** Every token of every sequence. */
export function fullPacking(
  device: Allocator,
  { sequences, tokens }: { sequences: number; tokens: number },
): Packing {
  const data = fullRecords({ sequences, tokens });
  const count = sequences * tokens;
  return {
    rows: staticRows(device, count),
    records: tensorFrom(device, { data, shape: [count, 4], label: "full packing" }),
  };
}

/** Room for `kept` tokens of each sequence, which a selection kernel fills. */
export function fixedPacking(
  device: Allocator,
  { sequences, kept }: { sequences: number; kept: number },
): Packing {
  const count = sequences * kept;
  return {
    rows: staticRows(device, count),
    records: createTensor(device, { shape: [count, 4], dtype: "u32", label: "packing" }),
  };
}

/** Room for a number of tokens that a selection kernel decides. */
export function dynamicPacking(device: Allocator, { maximum }: { maximum: number }): Packing {
  const count = createTensor(device, { shape: [1], dtype: "u32", label: "row count" });
  return {
    rows: dynamicRows(device, { count, maximum }),
    records: createTensor(device, { shape: [maximum, 4], dtype: "u32", label: "packing" }),
  };
}
