/**
 * How many rows a kernel works on: known when the program is recorded, or decided by an earlier kernel.
 *
 * Kernels inside a recursion read the number from a buffer and are dispatched for it, so that the same program serves
 * any number of active tokens, none included, and no routing decision is read back.
 */
import indirectGridCode from "./kernels/indirect_grid.wgsl" with { type: "text" };
import type { Commands, Grid } from "./commands.ts";
import { fixedCost } from "./cost.ts";
import type { Allocator } from "./memory.ts";
import { defineKernel } from "./kernel.ts";
import { createTensor, type Tensor, tensorFrom, writeTensor } from "./tensor.ts";

const INDIRECT_GRID = defineKernel("indirect_grid.wgsl", indirectGridCode);

/** Different launch shapes that kernels may ask of one GPU-side count. */
const MAX_INDIRECT_GRIDS = 64;

/** Workgroups along x before a grid turns to y: the smallest limit of any adapter. */
const MAX_GROUPS = 65535;

/** Rows of a dispatch. Kernels get `count`; buffers are sized by `maximum`. */
export interface Rows {
  /** (1) u32. */
  readonly count: Tensor;
  readonly maximum: number;
  readonly indirect: IndirectGrids | null;
}

/** What a kernel needs workgroups for: `unitsPerRow` units of each row, `unitsPerGroup` units to a workgroup. */
export interface RowGrid {
  readonly unitsPerRow?: number;
  readonly unitsPerGroup: number;
  /** Workgroups in z, for each of those in x and y. */
  readonly z?: number;
}

/** A row count that is known now. */
export function staticRows(device: Allocator, count: number): Rows {
  const tensor = tensorFrom(device, { data: Uint32Array.of(count), label: "row count" });
  return { count: tensor, maximum: count, indirect: null };
}

/** A row count that the GPU writes to `count` before the kernels that use it; never more than `maximum`. */
export function dynamicRows(device: Allocator, { count, maximum }: { count: Tensor; maximum: number }): Rows {
  return { count, maximum, indirect: new IndirectGrids(device) };
}

/**
 * The grid for a row kernel. Past 65,535 workgroups it grows in y: kernels number themselves
 * `group.x + group.y * num_workgroups.x` and return when past the count.
 */
export function rowGrid(
  { maximum, indirect }: Rows,
  { unitsPerRow = 1, unitsPerGroup, z = 1 }: RowGrid,
): Grid {
  if (indirect) return indirect.grid({ unitsPerRow, unitsPerGroup, z });
  return linearGrid(Math.ceil((maximum * unitsPerRow) / unitsPerGroup), { z });
}

/** A grid of `groups` workgroups in x, then y. */
export function linearGrid(groups: number, { z = 1 }: { z?: number } = {}): Grid {
  return [Math.min(groups, MAX_GROUPS), Math.ceil(groups / MAX_GROUPS), z];
}

/** Launch shapes computed on the GPU from one count, one for each kind of kernel that asks. */
export class IndirectGrids {
  readonly #device: Allocator;
  /** (64, 4) u32: units per row, units per group, z, unused. */
  readonly #shapes: Tensor;
  /** (64, 4) u32: x, y, z, unused. */
  readonly #grids: Tensor;
  readonly #known: string[] = [];

  constructor(device: Allocator) {
    this.#device = device;
    const shape = [MAX_INDIRECT_GRIDS, 4];
    this.#shapes = createTensor(device, { shape, dtype: "u32", label: "launch shapes" });
    this.#grids = createTensor(device, { shape, dtype: "u32", label: "launch grids" });
  }

  /** The place of a grid; its numbers are there once `record`'s dispatch has run. */
  grid({ unitsPerRow, unitsPerGroup, z }: Required<RowGrid>): Grid {
    const key = [unitsPerRow, unitsPerGroup, z].join();
    let index = this.#known.indexOf(key);
    if (index < 0) {
      index = this.#known.push(key) - 1;
      if (index >= MAX_INDIRECT_GRIDS) throw new RangeError("Too many launch shapes for one row count");
      const entry = { ...this.#shapes, offset: index * 16, shape: [4] };
      writeTensor(this.#device, entry, Uint32Array.of(unitsPerRow, unitsPerGroup, z, 0));
    }
    return { buffer: this.#grids.buffer, offset: index * 16 };
  }

  /** Records the dispatch that computes every grid from the count: after the count, before the kernels. */
  record(commands: Commands, count: Tensor): void {
    commands.dispatch(INDIRECT_GRID, {
      entryPoint: "indirect_grid",
      tensors: { count, shapes: this.#shapes, grids: this.#grids },
      grid: [1, 1, 1],
      // All shapes are read; which grids are asked for, and written, is only known later.
      cost: fixedCost({ numbers: 1 + 4 * MAX_INDIRECT_GRIDS }),
    });
  }
}
