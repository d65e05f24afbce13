/** Slots and pages of a depth-wise batch, as plain lists: what the kernels that move them must do. */

/** Sizes of a batch; see `PageTables`. */
export interface BatchSizes {
  readonly slots: number;
  /** Recursion steps with entries of their own; one more group is that of the layers around the recursion. */
  readonly stepGroups: number;
  readonly blockLayers: number;
  readonly endLayers: number;
  readonly banks: number;
  /** Pages of a text at each layer, and entries of a page. */
  readonly tableLength: number;
  readonly pageRows: number;
  readonly isCounted: boolean;
  readonly isShared: boolean;
}

export type Phase = "ended" | "entering" | "recurring" | "leaving";

/** What is known of a slot's text. */
export interface Slot {
  phase: Phase;
  step: number;
  depth: number;
  position: number;
  remaining: number;
  token: number;
}

export interface BatchSlots {
  readonly slots: Slot[];
  /** [group][slot]: entries that are counted. */
  readonly entries: number[][];
  /** [group][layer of the group][slot]: pages. */
  readonly pages: number[][][][];
  /** [bank]: pages that nobody has. */
  readonly free: number[][];
  /** By phase. */
  readonly turn: Record<Phase, number>;
  readonly stalled: Record<Phase, number>;
}

/** Layers of a group. */
function layersOf({ stepGroups, blockLayers, endLayers }: BatchSizes, group: number): number {
  return group < stepGroups ? blockLayers : endLayers;
}

function bankOf(sizes: BatchSizes, { group, layer }: { group: number; layer: number }): number {
  return ((group < sizes.stepGroups ? 0 : sizes.blockLayers) + layer) % sizes.banks;
}

/** Nobody has anything; all pages are free, `bankPages` of each bank. */
export function emptySlots(sizes: BatchSizes, bankPages: readonly number[]): BatchSlots {
  const groups = sizes.stepGroups + 1;
  const perSlot = <T>(make: () => T): T[] => Array.from({ length: sizes.slots }, make);
  const none = (): Record<Phase, number> => ({ ended: 0, entering: 0, recurring: 0, leaving: 0 });
  return {
    slots: perSlot(() => ({ phase: "ended", step: 0, depth: 0, position: 0, remaining: 0, token: 0 })),
    entries: Array.from({ length: groups }, () => perSlot(() => 0)),
    pages: Array.from(
      { length: groups },
      (_, group) => Array.from({ length: layersOf(sizes, group) }, () => perSlot((): number[] => [])),
    ),
    free: bankPages.map((count) => Array.from({ length: count }, (_, page) => count - 1 - page)),
    turn: none(),
    stalled: none(),
  };
}

/** Where a slot's next row has its entry. */
function placeOf(
  { slots, entries }: BatchSlots,
  sizes: BatchSizes,
  slot: number,
): { group: number; makes: boolean; entry: number } {
  const { phase, step, position } = slots[slot]!;
  if (phase !== "recurring") return { group: sizes.stepGroups, makes: phase === "entering", entry: position };
  if (sizes.isShared) return { group: 0, makes: step === 0, entry: position };
  return { group: step, makes: true, entry: sizes.isCounted ? entries[step]![slot]! : position };
}

/** Pages that a slot has in a group, the same number at each of its layers. */
function held({ pages }: BatchSlots, { group, slot }: { group: number; slot: number }): number {
  return (pages[group]![0]?.[slot] ?? []).length;
}

function needsPages(state: BatchSlots, sizes: BatchSizes, slot: number): boolean {
  const { group, makes, entry } = placeOf(state, sizes, slot);
  const isEmpty = layersOf(sizes, group) === 0;
  return !isEmpty && makes && Math.floor(entry / sizes.pageRows) >= held(state, { group, slot });
}

/** What a choice leaves. */
export interface Choice {
  /** (slot, position, place of its table, entry) of each row. */
  readonly records: number[][];
  /** Tokens of entering rows; of recurring ones that share keys, their records as `selectSlots` says. */
  readonly more: number[];
}

const NO_TABLE = 0xffffffff;

/** `selectSlots`. */
export function select(
  state: BatchSlots,
  sizes: BatchSizes,
  { phase, most, due, full }: { phase: Exclude<Phase, "ended">; most: number; due: number; full: number },
): Choice {
  const { slots, free, turn, stalled } = state;
  const inTurn = slots.map((_, i) => (turn[phase] + i) % slots.length).filter((s) =>
    slots[s]!.phase === phase
  );
  const group = phase === "recurring" ? 0 : sizes.stepGroups;
  const layers = phase === "leaving" ? 0 : layersOf(sizes, group);
  const needed = free.map((_, bank) =>
    Array.from({ length: layers }, (_, layer) => bankOf(sizes, { group, layer })).filter((b) => b === bank)
      .length
  );
  const able = Math.min(
    ...free.map((pages, bank) => needed[bank]! > 0 ? Math.floor(pages.length / needed[bank]!) : Infinity),
  );
  const needing = inTurn.filter((slot) => needsPages(state, sizes, slot));
  const given = needing.slice(0, able);
  stalled[phase] = needing.length - given.length;
  const ready = inTurn.filter((slot) => !needing.includes(slot) || given.includes(slot));
  for (const slot of given) {
    const place = placeOf(state, sizes, slot);
    for (let layer = 0; layer < layers; layer++) {
      const bank = bankOf(sizes, { group: place.group, layer });
      state.pages[place.group]![layer]![slot]!.push(free[bank]!.pop()!);
    }
  }
  const recurring = slots.filter((slot) => slot.phase === "recurring").length;
  const waits = phase === "leaving" && ready.length < due && recurring - stalled.recurring >= full;
  const chosen = waits ? [] : ready.slice(0, most);
  if (ready.length > chosen.length) turn[phase] = ready[chosen.length]!;
  const more: number[] = [];
  const records = chosen.map((slot) => {
    const { group, makes, entry } = placeOf(state, sizes, slot);
    const table = ((phase === "recurring" ? group * sizes.slots : 0) + slot) * sizes.tableLength;
    const { position, token } = slots[slot]!;
    if (phase === "entering") more.push(token);
    if (phase === "recurring" && sizes.isShared) more.push(slot, position, makes ? table : NO_TABLE, entry);
    return [slot, position, table, entry];
  });
  if (phase === "recurring" && sizes.isCounted) {
    for (const slot of chosen) state.entries[slots[slot]!.step]![slot]!++;
  }
  return { records, more };
}

/** `reservePages` for one row. */
export function reserve(
  state: BatchSlots,
  sizes: BatchSizes,
  { slot, tokens, start }: { slot: number; tokens: number; start: number },
): void {
  for (let group = 0; group <= sizes.stepGroups; group++) {
    const isCounted = sizes.isCounted && group < sizes.stepGroups;
    const entries = (isCounted ? state.entries[group]![slot]! : start) + tokens;
    const wanted = Math.ceil(entries / sizes.pageRows);
    for (let layer = 0; layer < layersOf(sizes, group); layer++) {
      const list = state.pages[group]![layer]![slot]!;
      while (list.length < wanted) list.push(state.free[bankOf(sizes, { group, layer })]!.pop()!);
    }
  }
}

/** `releasePages` for one row. */
export function release(state: BatchSlots, sizes: BatchSizes, slot: number): void {
  const hasEnded = state.slots[slot]!.phase === "ended";
  for (let group = 0; group <= sizes.stepGroups; group++) {
    const isCounted = sizes.isCounted && group < sizes.stepGroups;
    for (let layer = 0; layer < layersOf(sizes, group); layer++) {
      const list = state.pages[group]![layer]![slot]!;
      const kept = hasEnded
        ? 0
        : isCounted
        ? Math.min(list.length, Math.ceil(state.entries[group]![slot]! / sizes.pageRows))
        : list.length;
      state.free[bankOf(sizes, { group, layer })]!.push(...list.splice(kept));
    }
    if (hasEnded) state.entries[group]![slot] = 0;
  }
}
