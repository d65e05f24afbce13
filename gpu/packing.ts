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

/** Records of whole sequences, one after the other, whose tokens are the state's rows. */
export function fullRecords(lengths: readonly number[]): Uint32Array<ArrayBuffer> {
  const records = new Uint32Array(sumOf(lengths) * 4);
  let start = 0;
  for (const length of lengths) {
    const end = start + length;
    for (let row = start; row < end; row++) records.set([row, row - start, start, end], row * 4);
    start = end;
  }
  return records;
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

/** Every token of sequences of these lengths. */
export function fullPacking(device: Allocator, lengths: readonly number[]): Packing {
  const data = fullRecords(lengths);
  const count = sumOf(lengths);
  return {
    rows: staticRows(device, count),
    records: tensorFrom(device, { data, shape: [count, 4], label: "full packing" }),
  };
}

/** Room for `count` tokens, which a selection kernel fills. */
export function fixedPacking(device: Allocator, { count }: { count: number }): Packing {
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
