/** A plain model of the choice of slots: one slot after the other, pages from lists. */
import type { PHASES, SlotPhase } from "../../gpu/kernels/slot_fields.ts";
import { layersOf, PAGE_ROWS, pageCount, type TextPages } from "./text_pages.ts";

/** What a slot knows of its text. */
export interface SlotText {
  phase: keyof typeof PHASES;
  step: number;
  depth: number;
  position: number;
  remaining: number;
  token: number;
}

/** What is counted of each phase. */
export interface PhaseTallies {
  /** The slot whose turn is next. */
  turn: number;
  rowsNow: number;
  rows: number;
  runs: number;
  stalled: number;
}

/** The texts of a batch. */
export interface TextBatch {
  readonly texts: SlotText[];
  pages: TextPages;
  readonly tallies: Readonly<Record<SlotPhase, PhaseTallies>>;
}

/** A slot that runs. */
export interface ChosenRow {
  readonly slot: number;
  /** Where its table begins among those of a layer. */
  readonly table: number;
  readonly entry: number;
  /** Whether it makes keys and values. */
  readonly makes: boolean;
}

/** Where the row of a slot in a phase has its entry. */
function placeOf(
  { texts, pages: { shape, entries } }: TextBatch,
  { slot, phase }: { slot: number; phase: SlotPhase },
): { group: number; entry: number; makes: boolean } {
  const { position, step } = texts[slot]!;
  if (phase !== "recurring") {
    return { group: shape.groups - 1, entry: position, makes: phase === "entering" };
  }
  if (shape.isShared) return { group: 0, entry: position, makes: step === 0 };
  return { group: step, entry: shape.isCounted ? entries[step]![slot]! : position, makes: true };
}

/** Cached layers at which a row of the phase may need a page. */
export function layersInNeed({ shape }: TextPages, phase: SlotPhase): number[] {
  if (phase === "leaving") return [];
  return layersOf(shape, phase === "recurring" ? 0 : shape.groups - 1);
}

/** Whether a slot needs pages before it can run. */
function isInNeed(batch: TextBatch, { slot, phase }: { slot: number; phase: SlotPhase }): boolean {
  const { group, entry, makes } = placeOf(batch, { slot, phase });
  return makes && layersInNeed(batch.pages, phase).length > 0 &&
    pageCount(batch.pages, { group, slot }) * PAGE_ROWS <= entry;
}

/** Slots of a phase that need pages before they can run. */
export function slotsInNeed(batch: TextBatch, phase: SlotPhase): number[] {
  return [...batch.texts.keys()].filter((slot) =>
    batch.texts[slot]!.phase === phase && isInNeed(batch, { slot, phase })
  );
}

/** Gives a slot a page at each layer, if all of them can be had. */
function givePages({ pages }: TextBatch, { slot, phase, group }: {
  slot: number;
  phase: SlotPhase;
  group: number;
}): boolean {
  const { shape: { banks }, held, free } = pages;
  const layers = layersInNeed(pages, phase);
  const isEnough = free.every((list, bank) =>
    list.length >= layers.filter((layer) => layer % banks === bank).length
  );
  if (!isEnough) return false;
  for (const layer of layers) held[layer]![group]![slot]!.push(free[layer % banks]!.pop()!);
  return true;
}

/**
 * Changes the batch as `selectSlots` does and returns the rows that are chosen. All slots of the phase that need pages
 * get them while they last, in turn, those included that `most` keeps out.
 */
export function selectSlots(
  batch: TextBatch,
  { phase, most, due = 0, full = 0 }: { phase: SlotPhase; most: number; due?: number; full?: number },
): ChosenRow[] {
  const { texts, pages: { shape, entries }, tallies } = batch;
  const own = tallies[phase];
  const inTurn = Array.from({ length: shape.slots }, (_, i) => (own.turn + i) % shape.slots);
  const waiting = inTurn.filter((slot) => texts[slot]!.phase === phase);
  const ready = waiting.filter((slot) => {
    const { group } = placeOf(batch, { slot, phase });
    return !isInNeed(batch, { slot, phase }) || givePages(batch, { slot, phase, group });
  });
  const canRecur = texts.filter((text) => text.phase === "recurring").length - tallies.recurring.stalled;
  const waits = phase === "leaving" && waiting.length < due && canRecur >= full;
  const chosen = waits ? [] : ready.slice(0, most);

  // Whoever is left out is first next time.
  if (ready.length > chosen.length) own.turn = ready[chosen.length]!;
  own.rowsNow = chosen.length;
  own.rows += chosen.length;
  own.runs += chosen.length > 0 ? 1 : 0;
  own.stalled = waiting.length - ready.length;

  return chosen.map((slot) => {
    const { group, entry, makes } = placeOf(batch, { slot, phase });
    if (phase === "recurring" && shape.isCounted) entries[group]![slot]!++;
    const tables = phase === "recurring" ? group * shape.slots : 0;
    return { slot, table: (tables + slot) * shape.tableLength, entry, makes };
  });
}
