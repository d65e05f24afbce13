/** Row counts that every row kernel is tested with. */
import { assert } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import type { Packing } from "../../gpu/packing.ts";
import type { Rows } from "../../gpu/rows.ts";
import { tensorFrom } from "../../gpu/tensor.ts";
import { packingRecords, uploadRows } from "./packing.ts";

/** Rows in use, rows that the buffers hold and columns; the count comes from the GPU where it is not the maximum. */
export interface RowCase {
  readonly name: string;
  readonly count: number;
  readonly maximum: number;
  readonly dim: number;
}

export const rowCases: readonly RowCase[] = [
  { name: "tidy sizes", count: 32, maximum: 32, dim: 64 },
  { name: "odd sizes", count: 37, maximum: 37, dim: 20 },
  { name: "one row", count: 1, maximum: 1, dim: 4 },
  { name: "a dynamic count", count: 13, maximum: 29, dim: 12 },
  { name: "a dynamic count of zero", count: 0, maximum: 29, dim: 12 },
];

/** More rows than a loop may take turns. */
export const manyRows: RowCase = { name: "70,000 rows", count: 70000, maximum: 70000, dim: 4 };

/** The rows of a case; `recordRows` must come before the kernels. */
export function caseRows(device: GpuDevice, { count, maximum }: Pick<RowCase, "count" | "maximum">): Rows {
  return uploadRows(device, { count, spare: count === maximum ? undefined : maximum - count });
}

/** Packed rows at the given ascending places of one sequence, the first `count` of them in use. */
export function casePacking(
  device: GpuDevice,
  { places, count = places.length }: { places: readonly number[]; count?: number },
): Packing {
  const data = packingRecords([places], { tokens: 0 });
  const shape = [places.length, 4];
  return {
    rows: caseRows(device, { count, maximum: places.length }),
    records: tensorFrom(device, { data, shape, label: "packing" }),
  };
}

/** The part of a `blank` output that a kernel must write, after checking that it left the rest alone. */
export function writtenPart(data: ArrayLike<number>, length: number): number[] {
  const all = Array.from(data);
  assert(all.slice(length).every(Number.isNaN), "Values past the row count were written");
  return all.slice(0, length);
}
