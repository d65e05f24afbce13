import slotStatesCode from "./slot_states.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { type NumberWork, rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { GATING_PART, GATINGS, type ScatterGating } from "./scatter_rows.ts";
import { SLOT_PART } from "./slot_fields.ts";

const SLOT_STATES = defineKernel("slot_states.wgsl", slotStatesCode, { ...SLOT_PART, ...GATING_PART });

/** Constant GROUP of the file. */
const GROUP = 64;

/** What a recursion step's output joins: nothing, the state before the step, or the state before the recursion. */
export type StateBase = "none" | "state" | "start";

/**
 * Records that z (rows, C), what the layers before the recursion made of rows, becomes the state of their slots, and with
 * `starts` also what is kept until the recursion's end. states, starts (S, C); a row's slot is x of its record. All f32.
 */
export function enterStates(
  commands: Commands,
  { z, packing, states, starts }: {
    z: Tensor;
    packing: Packing;
    states: Tensor;
    starts: Tensor | null;
  },
): void {
  const { maximum } = packing.rows;
  checkShape("enterStates", {
    z: [z, [maximum, states.shape.at(-1)!]],
    ...(starts && { starts: [starts, states.shape] as const }),
  });
  record(commands, packing, {
    entryPoint: starts ? "replace_both" : "replace_state",
    tensors: { z, states, ...(starts && { starts }) },
    columnWork: { numbers: starts ? 3 : 2 },
  });
}

/**
 * Records that z (rows, C), a recursion step's output, joins the states (S, C) of the rows' slots by `gating`, see
 * `scatterRows`, with the slots' gates (S). `base` says what it joins: with "start" that is starts (S, C), at a token's
 * last step, and at those before it nothing. slots (fields, S) u32. The others are f32.
 *
 * @throws TypeError for shapes that do not fit, and for a base of "start" without starts.
 */
export function recurStates(
  commands: Commands,
  { z, packing, slots, gates, states, starts }: {
    z: Tensor;
    packing: Packing;
    slots: Tensor;
    gates: Tensor;
    states: Tensor;
    starts: Tensor | null;
  },
  { base, gating }: { base: StateBase; gating: ScatterGating },
): void {
  checkShape("recurStates", {
    z: [z, [packing.rows.maximum, states.shape.at(-1)!]],
    gates: [gates, [states.shape[0]!]],
    ...(starts && { starts: [starts, states.shape] as const }),
  });
  if (base === "none") {
    return record(commands, packing, {
      entryPoint: "replace_state",
      tensors: { z, states },
      columnWork: { numbers: 2 },
    });
  }
  const constants = { GATING: GATINGS[gating] };
  if (base === "state") {
    return record(commands, packing, {
      entryPoint: "join_state",
      tensors: { z, states, gates },
      constants,
      columnWork: { numbers: 3, flops: 3 },
    });
  }
  if (!starts) throw new TypeError("Cannot record recurStates: the states before the recursion are missing");
  record(commands, packing, {
    entryPoint: "join_start",
    tensors: { z, states, gates, slots, starts },
    constants,
    // Which rows are at their last step, and join, only the slots tell.
    columnWork: { numbers: 2 },
  });
}

function record(
  commands: Commands,
  { rows, records }: Packing,
  { entryPoint, tensors, constants, columnWork }: {
    tensors: Readonly<Record<string, Tensor>> & { readonly states: Tensor };
    entryPoint: string;
    constants?: Readonly<Record<string, number>>;
    /** Of a column of a row: see `rowCost`. */
    columnWork: NumberWork;
  },
): void {
  const dim = tensors.states.shape.at(-1)!;
  commands.dispatch(SLOT_STATES, {
    entryPoint,
    tensors: { rows: rows.count, records, ...tensors },
    constants: { DIM: dim, ...constants },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
    cost: rowCost(rows, { columns: dim, ...columnWork }),
  });
}
