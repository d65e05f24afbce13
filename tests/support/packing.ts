/** Packed rows and row counts for tests of kernels. */
import type { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import type { Packing } from "../../gpu/packing.ts";
import { dynamicRows, type Rows, staticRows } from "../../gpu/rows.ts";
import { blankIndices, uploadIndices } from "./device.ts";
import { writeTensor } from "../../gpu/tensor.ts";

/** How many rows a test wants: `count` of them, and, where `spare` is given, a GPU-side count with room for more. */
export interface RowsWanted {
  readonly count: number;
  readonly spare?: number | undefined;
}

/** Rows of a test. For a GPU-side count, `recordRows` must come before the kernels that use it. */
export function uploadRows(device: GpuDevice, { count, spare }: RowsWanted): Rows {
  if (spare === undefined) return staticRows(device, count);
  return dynamicRows(device, { count: uploadIndices(device, [count]), maximum: count + spare });
}

/** Records the launch grids of a GPU-side count; nothing for a fixed one. */
export function recordRows(commands: Commands, rows: Rows): void {
  rows.indirect?.record(commands, rows.count);
}

/** Records of sequences that keep the given positions: for every sequence b, state rows b * tokens + position. */
export function packingRecords(
  positions: readonly (readonly number[])[],
  { tokens }: { tokens: number },
): Uint32Array<ArrayBuffer> {
  let start = 0;
  return Uint32Array.from(positions.flatMap((kept, sequence) => {
    const end = start + kept.length;
    const records = kept.flatMap((position) => [sequence * tokens + position, position, start, end]);
    start = end;
    return records;
  }));
}

/** Packed rows of the given positions of each sequence. */
export function uploadPacking(
  device: GpuDevice,
  { positions, tokens, spare }: {
    readonly positions: readonly (readonly number[])[];
    readonly tokens: number;
    readonly spare?: number | undefined;
  },
): Packing {
  const data = packingRecords(positions, { tokens });
  const rows = uploadRows(device, { count: data.length / 4, spare });
  const records = blankIndices(device, [rows.maximum, 4]);
  writeTensor(device, records, data);
  return { rows, records };
}

/** All positions of `sequences` sequences. */
export function allPositions({ sequences, tokens }: { sequences: number; tokens: number }): number[][] {
  return Array.from({ length: sequences }, () => Array.from({ length: tokens }, (_, position) => position));
}
