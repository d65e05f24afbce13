import slotFinishCode from "./slot_finish.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { checkShape, elementCount, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";
import { SLOT_FIELD_COUNT, SLOT_PART, TALLIES_PART, TALLY_COUNT } from "./slot_fields.ts";

const SLOT_FINISH = defineKernel("slot_finish.wgsl", slotFinishCode, { ...SLOT_PART, ...TALLIES_PART });

/** Invocations of a workgroup in the file. */
const GROUP = 64;

/** u32 elements of a record of the log: slot, token, bits of its log-probability, recursion steps that decided it. */
export const LOG_RECORD_LENGTH = 4;

/**
 * Records what follows the draw of a token for each row's slot, x of its record: an entry in the log, after those that
 * the tallies count; then the text has ended, by one of the `ends`, by its length or by damage, or the token is next to
 * enter.
 *
 * slots (fields, S), tokens (S), tallies (24), ends (1 + number of them, the number in front), log (entries, 4) u32;
 * logProbabilities (S) f32.
 *
 * @throws TypeError for shapes that do not fit; RangeError for more ends and rows than one workgroup can loop over.
 */
export function finishTokens(
  commands: Commands,
  { slots, packing: { rows, records }, tokens, logProbabilities, ends, log, tallies }: {
    slots: Tensor;
    packing: Packing;
    tokens: Tensor;
    logProbabilities: Tensor;
    ends: Tensor;
    log: Tensor;
    tallies: Tensor;
  },
): void {
  const count = slots.shape[1]!;
  checkShape("finishTokens", {
    slots: [slots, [SLOT_FIELD_COUNT, count]],
    packing: [records, [rows.maximum, 4]],
    tokens: [tokens, [count]],
    logProbabilities: [logProbabilities, [count]],
    log: [log, [rows.maximum, LOG_RECORD_LENGTH]],
    tallies: [tallies, [TALLY_COUNT]],
  });
  const endCount = elementCount(ends.shape) - 1;
  if (Math.ceil(rows.maximum / GROUP) * (1 + endCount) > MAX_LOOP_TURNS) {
    throw new RangeError(`Cannot look for ${endCount} end tokens in ${rows.maximum} rows in one dispatch`);
  }
  commands.dispatch(SLOT_FINISH, {
    entryPoint: "finish",
    tensors: {
      rows: rows.count,
      records,
      slots,
      tokens,
      log_probabilities: logProbabilities,
      ends,
      log,
      tallies,
    },
    grid: [1, 1, 1],
    // A record, three numbers of the draw, six of the slot's fields, and a record of the log.
    cost: rowCost(rows, { numbers: 17 }),
  });
}
