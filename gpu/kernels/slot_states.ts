import slotStatesCode from "./slot_states.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { GATING_PART, GATINGS, type ScatterGating } from "./scatter_rows.ts";
import { SLOT_PART } from "./slot_fields.ts";

const SLOT_STATES = defineKernel("slot_states.wgsl", slotStatesCode, { ...SLOT_PART, ...GATING_PART });

/** Constant GROUP of the file. */
const GROUP = 64;

/** Values of BASE in the file: what a step's output joins. */
const BASES = {
  /** Nothing: it is the state. */
  none: 0,
  /** The state before the step. */
  state: 1,
  /** At the token's last step the state before the recursion; nothing at steps before. */
  start: 2,
} as const;

/**
 * Records that z (rows, C), what the layers before the recursion made of rows, becomes the state of their slots, and with
 * `starts` also what is kept until the recursion's end. states, starts (S, C); a row's slot is x of its record. All f32.
 */
export function enterStates(
  commands: Commands,
  { z, packing: { rows, records }, states, starts }: {
    z: Tensor;
    packing: Packing;
    states: Tensor;
    starts: Tensor | null;
  },
): void {
  const dim = states.shape.at(-1)!;
  checkShape("enterStates", {
    z: [z, [rows.maximum, dim]],
    ...(starts && { starts: [starts, states.shape] as const }),
  });
  commands.dispatch(SLOT_STATES, {
    entryPoint: "entered",
    // Without a start the kernel still names it; it does not write there.
    tensors: { rows: rows.count, records, z, states, starts: starts ?? states },
    constants: { DIM: dim, HAS_START: Number(starts !== null) },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
  });
}

/**
 * Records that z (rows, C), a recursion step's output, joins the states (S, C) of the rows' slots by `gating`, see
 * `scatterRows`, with the slots' gates (S). `base` says what it joins; with `start` that is starts (S, C), otherwise not
 * looked at. slots (fields, S) u32. The others are f32.
 */
export function recurStates(
  commands: Commands,
  { z, packing: { rows, records }, slots, gates, states, starts }: {
    z: Tensor;
    packing: Packing;
    slots: Tensor;
    gates: Tensor;
    states: Tensor;
    starts: Tensor | null;
  },
  { base, gating }: { base: keyof typeof BASES; gating: ScatterGating },
): void {
  const dim = states.shape.at(-1)!;
  checkShape("recurStates", { z: [z, [rows.maximum, dim]], gates: [gates, [states.shape[0]!]] });
  commands.dispatch(SLOT_STATES, {
    entryPoint: "recurred",
    tensors: { rows: rows.count, records, slots, z, gates, states, starts: starts ?? states },
    constants: { DIM: dim, BASE: BASES[base], GATING: GATINGS[gating] },
    grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
  });
}
