import sumCode from "./sum.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Rows } from "../rows.ts";
import { checkShape, ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

const SUM = defineKernel("sum.wgsl", sumCode, { "row_reduce.wgsl": rowReduceCode });

/** Invocations that share the sum. */
const LANES = 256;

/**
 * Records out[slot] = scale * sum of one value per row, or of their mean, or adds it to out[slot]; no rows give 0.
 * values (rows) f32, out f32. The same values give the same bits every time.
 *
 * @throws RangeError for a slot past the end of out, or more rows than one workgroup can loop over.
 */
export function sum(
  commands: Commands,
  { values, out }: { values: Tensor; out: Tensor },
  { rows, slot = 0, scale = 1, accumulate = false, mean = false }: {
    rows: Rows;
    slot?: number;
    scale?: number;
    accumulate?: boolean;
    mean?: boolean;
  },
): void {
  checkShape("sum", { values: [values, [rows.maximum]] });
  if (!(slot < out.shape[0]!)) {
    throw new RangeError(`Cannot record sum: slot ${slot} is past the ${out.shape[0]} of ${out.label}`);
  }
  if (rows.maximum > LANES * MAX_LOOP_TURNS) {
    throw new RangeError(
      `Cannot sum ${rows.maximum} values in one dispatch, at most ${LANES * MAX_LOOP_TURNS}; ` +
        "lower --batch-size or --sequence-length",
    );
  }
  commands.dispatch(SUM, {
    entryPoint: "forward",
    tensors: { rows: rows.count, values, out },
    settings: { slot, scale, accumulate: Number(accumulate), mean: Number(mean) },
    constants: { LANES, ROWS: 1 },
    grid: [1, 1, 1],
    cost: {
      ...rowCost(rows, { numbers: 1, flops: 1 }),
      fixed: { bytes: (accumulate ? 2 : 1) * ELEMENT_BYTES },
    },
  });
}
