/** Launch shape of kernels that reduce a row, by adapter kind. */
import type { GpuDevice } from "../device.ts";

/** Loop turns that one invocation may take: lavapipe ends it silently at 65,535. */
export const MAX_LOOP_TURNS = 65000;

/** Constants LANES and ROWS of row_reduce.wgsl. */
export interface RowLanes {
  readonly LANES: number;
  readonly ROWS: number;
}

/**
 * How many invocations share a row of `turns` loop turns. A software adapter runs one row per invocation, eight rows
 * to a vector, because its barriers are costly; a GPU needs neighbouring lanes on neighbouring addresses. Long rows
 * get more lanes, so that no invocation comes near the loop limit.
 */
export function rowLanes(device: GpuDevice, turns: number): RowLanes {
  if (device.info.isSoftware && turns <= MAX_LOOP_TURNS) return { LANES: 1, ROWS: 8 };
  return { LANES: 64, ROWS: 1 };
}

/**
 * Constants COLUMNS and SLICES of kernels that sum over rows.
 *
 * @throws RangeError for more rows than the slices can loop over.
 */
export function columnSlices(device: GpuDevice, maximumRows: number): { COLUMNS: number; SLICES: number } {
  const slices = device.info.isSoftware ? { COLUMNS: 8, SLICES: 8 } : { COLUMNS: 8, SLICES: 32 };
  if (maximumRows > slices.SLICES * MAX_LOOP_TURNS) {
    throw new RangeError(
      `Cannot sum over ${maximumRows} rows in one dispatch, at most ${slices.SLICES * MAX_LOOP_TURNS}; ` +
        "lower --batch-size or --sequence-length",
    );
  }
  return slices;
}
