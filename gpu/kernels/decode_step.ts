import decodeStepCode from "./decode_step.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { fixedCost, rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

const DECODE_STEP = defineKernel("decode_step.wgsl", decodeStepCode);

/** Invocations of a workgroup. */
const WIDTH = 64;

/**
 * Records the rows of a decoding step: row i is the next token of the text in slot slots_i, at its position.
 * slots (rows) u32; tokens, positions (S) u32. Overwritten: ids (rows) u32, and the packing's records.
 */
export function nextRows(
  commands: Commands,
  { slots, tokens, positions, ids, packing: { rows, records } }: {
    slots: Tensor;
    tokens: Tensor;
    positions: Tensor;
    ids: Tensor;
    packing: Packing;
  },
): void {
  checkShape("nextRows", { slots: [slots, [rows.maximum]], ids: [ids, [rows.maximum]] });
  commands.dispatch(DECODE_STEP, {
    entryPoint: "next_rows",
    tensors: { rows: rows.count, slots, tokens, positions, ids, packing: records },
    constants: { SLOTS: 1, WIDTH },
    grid: [Math.ceil(rows.maximum / WIDTH), 1, 1],
    // A slot, its token and position; an id and a record.
    cost: rowCost(rows, { numbers: 8 }),
  });
}

/** u32 elements of a record of `advance`. */
export const HISTORY_RECORD_LENGTH = 4;

/**
 * Records the end of a decoding step: each row's slot gets a record (token, bits of its log-probability, depth,
 * position of the token before it) in the history, and moves one position on.
 *
 * tokens, positions (S) u32 and logProbabilities (S) f32 by slot; slots, depths (rows) u32 by row. history
 * (steps, S, 4) u32 is written at the step that cursor (1) u32 stands at, which then counts on.
 *
 * @param lastRow All rows belong to one text and the last one decides: a prompt.
 * @throws RangeError for more rows than one workgroup can loop over.
 */
export function advance(
  commands: Commands,
  { slots, tokens, logProbabilities, depths, positions, history, cursor, packing: { rows } }: {
    slots: Tensor;
    tokens: Tensor;
    logProbabilities: Tensor;
    depths: Tensor;
    positions: Tensor;
    history: Tensor;
    cursor: Tensor;
    packing: Packing;
  },
  { lastRow = false }: { lastRow?: boolean } = {},
): void {
  const [count] = tokens.shape as [number];
  checkShape("advance", {
    slots: [slots, [rows.maximum]],
    depths: [depths, [rows.maximum]],
    positions: [positions, [count]],
    logProbabilities: [logProbabilities, [count]],
    history: [history, [1, count, HISTORY_RECORD_LENGTH]],
  });
  if (rows.maximum > WIDTH * MAX_LOOP_TURNS) {
    throw new RangeError(`Cannot advance ${rows.maximum} texts at once, at most ${WIDTH * MAX_LOOP_TURNS}`);
  }
  commands.dispatch(DECODE_STEP, {
    entryPoint: "advance",
    tensors: {
      rows: rows.count,
      slots,
      tokens,
      positions,
      log_probabilities: logProbabilities,
      depths,
      history,
      cursor,
    },
    constants: { SLOTS: count, LAST_ROW: Number(lastRow), WIDTH },
    grid: [1, 1, 1],
    // A slot, its four numbers, of which the position is written, too, and a record.
    cost: lastRow ? fixedCost({ numbers: 10 }) : rowCost(rows, { numbers: 10 }),
  });
}
