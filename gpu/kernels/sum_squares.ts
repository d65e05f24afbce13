import sumSquaresCode from "./sum_squares.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { fixedCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { linearGrid } from "../rows.ts";
import { checkShape, elementCount, type Tensor, viewTensor } from "../tensor.ts";
import { flatWindows, windowOf } from "./flat_windows.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

const SUM_SQUARES = defineKernel("sum_squares.wgsl", sumSquaresCode, { "row_reduce.wgsl": rowReduceCode });

/** Invocations of a workgroup. */
const LANES = 256;

/** Elements of one partial sum: LANES * TURNS vec4. */
const PARTIAL_ELEMENTS = LANES * 16 * 4;

/** Elements of the working memory that `sumSquares` needs for `elements` values. */
export function partialSumCount(elements: number): number {
  return Math.ceil(elements / PARTIAL_ELEMENTS);
}

/**
 * Records out[slot] = sum of the squares of all values, or adds it to out[slot].
 * values f32 of any shape, their number a multiple of 4; partials (`partialSumCount` of it) working memory; out f32.
 * The same values give the same bits every time.
 *
 * @throws RangeError for a slot past the end of out, or more values than one workgroup can sum the partials of.
 */
export function sumSquares(
  commands: Commands,
  { values, partials, out }: { values: Tensor; partials: Tensor; out: Tensor },
  { slot = 0, accumulate = false }: { slot?: number; accumulate?: boolean } = {},
): void {
  const elements = elementCount(values.shape);
  const count = partialSumCount(elements);
  checkShape("sumSquares", { partials: [partials, [count]] });
  if (!(slot < out.shape[0]!)) {
    throw new RangeError(
      `Cannot record sumSquares: slot ${slot} is past the ${out.shape[0]} of ${out.label}`,
    );
  }
  if (count > LANES * MAX_LOOP_TURNS) {
    throw new RangeError(
      `Cannot sum ${elements} squares, at most ${LANES * MAX_LOOP_TURNS * PARTIAL_ELEMENTS}`,
    );
  }
  const constants = { LANES, ROWS: 1 };
  for (const window of flatWindows(commands.device, values)) {
    const groups = partialSumCount(window.length);
    commands.dispatch(SUM_SQUARES, {
      entryPoint: "partial_sums",
      tensors: {
        values: windowOf(values, window),
        partials: viewTensor(partials, { start: window.start / PARTIAL_ELEMENTS, shape: [groups] }),
      },
      constants,
      grid: linearGrid(groups),
      cost: fixedCost({ numbers: window.length + groups, flops: 2 * window.length }),
    });
  }
  commands.dispatch(SUM_SQUARES, {
    entryPoint: "total",
    tensors: { partials, out },
    settings: { count, slot, accumulate: Number(accumulate) },
    constants,
    grid: [1, 1, 1],
    cost: fixedCost({ numbers: count + (accumulate ? 2 : 1), flops: count }),
  });
}

/**
 * Records norm = (n, c) with n = sqrt(squares[0]) and c = min(1, maxNorm / n), the factor that brings a gradient of
 * norm n down to maxNorm (Pascanu et al. 2013, arXiv 1211.5063); c = 1 if maxNorm <= 0 (no clipping) and c = 0 if n is
 * not finite, on which `adamw` changes nothing. squares (1) f32, norm (2) f32.
 */
export function clipNorm(
  commands: Commands,
  { squares, norm }: { squares: Tensor; norm: Tensor },
  { maxNorm }: { maxNorm: number },
): void {
  checkShape("clipNorm", { squares: [squares, [1]], norm: [norm, [2]] });
  commands.dispatch(SUM_SQUARES, {
    entryPoint: "clip",
    tensors: { squares, norm },
    constants: { MAX_NORM: Math.max(0, maxNorm) },
    grid: [1, 1, 1],
    cost: fixedCost({ numbers: 3, flops: 2 }),
  });
}
