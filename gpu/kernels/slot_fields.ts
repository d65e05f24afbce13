/** Texts of a depth-wise batch: what each slot knows of its own, and what is counted for all. */
import slotFieldsCode from "./slot_fields.wgsl" with { type: "text" };
import slotTalliesCode from "./slot_tallies.wgsl" with { type: "text" };

/** The parts of a kernel that moves slots. */
export const SLOT_PART = { "slot_fields.wgsl": slotFieldsCode } as const;
export const TALLIES_PART = { "slot_tallies.wgsl": slotTalliesCode } as const;

/** Rows of the (fields, S) u32 tensor of slots. */
export const SLOT_FIELDS = { phase: 0, step: 1, depth: 2, position: 3, remaining: 4, token: 5 } as const;

/** Rows of the tensor of slots. */
export const SLOT_FIELD_COUNT = 6;

/** Slots come in multiples of this, so that each field can be bound by itself. */
export const SLOT_ALIGNMENT = 64;

/** Values of a slot's phase. */
export const PHASES = { ended: 0, entering: 1, recurring: 2, leaving: 3 } as const;

/** A phase in which a slot is chosen to run. */
export type SlotPhase = Exclude<keyof typeof PHASES, "ended">;

/** Places in the (24) u32 tensor of tallies; those but the first have one for each phase, by its value. */
export const TALLIES = { events: 0, turn: 4, rowsNow: 8, rows: 12, runs: 16, stalled: 20 } as const;

/** Elements of the tensor of tallies. */
export const TALLY_COUNT = 24;
