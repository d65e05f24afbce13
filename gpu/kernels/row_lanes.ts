/** What kernels choose by adapter kind: launch shapes and ways to share data between lanes. */
import type { GpuDevice } from "../device.ts";

/** Loop turns that one invocation may take: lavapipe ends it silently at 65,535. */
export const MAX_LOOP_TURNS = 65000;

/**
 * Whether a workgroup of eight is one subgroup, so that its lanes can pass data round by shuffles: so on a software
 * adapter with one vector width. Others do not promise it.
 */
export function hasSubgroupsOfEight({ info, features }: Pick<GpuDevice, "info" | "features">): boolean {
  return info.isSoftware && features.has("subgroups") && info.subgroupSize === 8;
}

/** Constants LANES and ROWS of row_reduce.wgsl. */
export interface RowLanes {
  readonly LANES: number;
  readonly ROWS: number;
}

/**
 * How many invocations share a row that takes `turns` loop turns in each of up to four loops. On a software adapter the eight lanes of one vector: barriers
 * across vectors are costly, and a vector that reads along one row is 1.6 to 3 times faster than one on eight rows.
 * Long rows get more lanes, so that no invocation comes near the loop limit and long sums keep their precision.
 */
export function rowLanes(device: GpuDevice, turns: number): RowLanes {
  if (device.info.isSoftware && turns <= MAX_LOOP_TURNS) return { LANES: 8, ROWS: 1 };
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
