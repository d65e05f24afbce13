/** Random texts in the slots of a batch, and their fields on the GPU. */
import { AssertionError } from "@std/assert";
import { PAGE_ROWS, pagesFor } from "../../gpu/kernels/cache_pages.ts";
import {
  PHASES,
  SLOT_FIELD_COUNT,
  SLOT_FIELDS,
  type SlotPhase,
  TALLIES,
  TALLY_COUNT,
} from "../../gpu/kernels/slot_fields.ts";
import type { ChosenRow, PhaseTallies, SlotText, TextBatch } from "../reference/slot_select.ts";
import { layersOf, type PageShape } from "../reference/text_pages.ts";
import type { Random } from "./random.ts";
import { emptyLists } from "./text_pages.ts";

export const SLOT_PHASES = ["entering", "recurring", "leaving"] as const;

/** How texts keep their entries, see `PageTables`. */
export const schemes = {
  "counted entries": { isCounted: true, isShared: false },
  "entries by position": { isCounted: false, isShared: false },
  "shared keys": { isCounted: false, isShared: true },
} as const;

/** (fields, S): what the slots know. */
export function slotData(texts: readonly SlotText[]): Uint32Array<ArrayBuffer> {
  const data = new Uint32Array(SLOT_FIELD_COUNT * texts.length);
  texts.forEach(({ phase, ...fields }, slot) => {
    data[SLOT_FIELDS.phase * texts.length + slot] = PHASES[phase];
    for (const [name, value] of Object.entries(fields)) {
      data[SLOT_FIELDS[name as keyof typeof fields] * texts.length + slot] = value;
    }
  });
  return data;
}

/** (24): what is counted, with the records in the log. */
export function tallyData(
  tallies: TextBatch["tallies"],
  { events = 0 }: { events?: number } = {},
): Uint32Array<ArrayBuffer> {
  const data = new Uint32Array(TALLY_COUNT);
  data[TALLIES.events] = events;
  for (const phase of SLOT_PHASES) {
    for (const [name, value] of Object.entries(tallies[phase])) {
      data[TALLIES[name as keyof PhaseTallies] + PHASES[phase]] = value;
    }
  }
  return data;
}

/** Tallies from which each phase starts at one of `slots` slots. */
export function randomTallies(random: Random, { slots }: { slots: number }): TextBatch["tallies"] {
  const start = (): PhaseTallies => ({
    turn: random.integer(slots),
    rowsNow: 0,
    rows: 0,
    runs: 0,
    stalled: 0,
  });
  return { entering: start(), recurring: start(), leaving: start() };
}

/** A number up to `most`, every second time the first of a page. */
function randomEntries(random: Random, most: number): number {
  return random.uniform() < 0.5
    ? PAGE_ROWS * random.integer(Math.floor(most / PAGE_ROWS) + 1)
    : random.integer(most + 1);
}

/** A text in the phase, at any of `capacity` positions and `steps` recursion steps. */
export function randomText(
  random: Random,
  { phase, capacity, steps }: { phase: keyof typeof PHASES; capacity: number; steps: number },
): SlotText {
  return {
    phase,
    step: phase === "leaving" ? steps : random.integer(steps),
    depth: 1 + random.integer(steps),
    position: randomEntries(random, capacity - 1),
    remaining: 1 + random.integer(100),
    token: random.integer(50_000),
  };
}

/**
 * Texts in phases drawn by their `shares`, the rest ended. The lists have the pages that the texts' entries so far
 * take, and now and then one more for the entry that is next; they are to be dealt yet.
 */
export function randomBatch(
  random: Random,
  { shape, steps, shares }: {
    shape: PageShape;
    steps: number;
    shares: Readonly<Partial<Record<SlotPhase, number>>>;
  },
): TextBatch {
  const { slots, groups, banks, tableLength, isCounted, isShared } = shape;
  const texts = Array.from({ length: slots }, () => {
    let draw = random.uniform();
    const phase = SLOT_PHASES.find((name) => (draw -= shares[name] ?? 0) < 0) ?? "ended";
    return randomText(random, { phase, capacity: tableLength * PAGE_ROWS, steps });
  });
  const entries = Array.from({ length: groups }, () => new Array<number>(slots).fill(0));
  const held = emptyLists(shape);
  texts.forEach(({ phase, step, position }, slot) => {
    if (phase === "ended") return;
    for (let group = 0; group < groups; group++) {
      const isLast = group === groups - 1;
      if (isCounted && !isLast) entries[group]![slot] = randomEntries(random, position);
      const before = isCounted && !isLast ? entries[group]![slot]! : position;
      const stepsRun = phase === "recurring" ? (isShared ? Math.min(step, 1) : step) : 0;
      const hasOwn = isLast ? phase !== "entering" : phase === "leaving" || group < stepsRun;
      const isNext = isLast ? phase === "entering" : phase === "recurring" && group === (isShared ? 0 : step);
      // A counted entry that the token has made is among those counted.
      const count = (hasOwn && !(isCounted && !isLast)) || (isNext && random.uniform() < 0.3)
        ? before + 1
        : before;
      for (const layer of layersOf(shape, group)) {
        held[layer]![group]![slot] = new Array<number>(pagesFor(count)).fill(0);
      }
    }
  });
  const free = Array.from({ length: banks }, (): number[] => []);
  return { texts, pages: { shape, entries, held, free }, tallies: randomTallies(random, { slots }) };
}

/** What becomes of texts that ran in a phase: all go on, but few of those that drew a token end. */
export function advance(
  { texts, pages: { shape } }: TextBatch,
  { phase, rows, steps, random }: {
    phase: SlotPhase;
    rows: readonly ChosenRow[];
    steps: number;
    random: Random;
  },
): void {
  for (const { slot } of rows) {
    const text = texts[slot]!;
    if (phase === "entering") Object.assign(text, { phase: "recurring", step: 0 });
    else if (phase === "recurring") {
      text.step++;
      // Entries by position have no holes.
      const leavesEarly = (shape.isCounted || shape.isShared) && random.uniform() < 0.3;
      if (text.step === steps || leavesEarly) text.phase = "leaving";
    } else {
      text.position++;
      text.token = random.integer(50_000);
      const ends = text.position === shape.tableLength * PAGE_ROWS || random.uniform() < 0.1;
      text.phase = ends ? "ended" : "entering";
    }
  }
}

/** Checks that two arrays are the same to the last element; for long ones, of which it names the first difference. */
export function assertSame(actual: ArrayLike<number>, expected: ArrayLike<number>, label: string): void {
  if (actual.length !== expected.length) {
    throw new AssertionError(`${label}: ${actual.length} values, expected ${expected.length}`);
  }
  for (let i = 0; i < expected.length; i++) {
    if (!Object.is(actual[i], expected[i])) {
      throw new AssertionError(`${label}: at index ${i} met ${actual[i]}, expected ${expected[i]}`);
    }
  }
}
