import { assert, assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { PAGE_ROWS } from "../../gpu/kernels/cache_pages.ts";
import type { PageTables } from "../../gpu/kernels/page_tables.ts";
import { SLOT_FIELD_COUNT, type SlotPhase, TALLY_COUNT } from "../../gpu/kernels/slot_fields.ts";
import { selectSlots } from "../../gpu/kernels/slot_select.ts";
import { planAllocator } from "../../gpu/memory.ts";
import { fixedPacking } from "../../gpu/packing.ts";
import { createTensor, type Tensor } from "../../gpu/tensor.ts";
import * as reference from "../reference/slot_select.ts";
import { allPages, type PageShape, type TextPages } from "../reference/text_pages.ts";
import { gpuTest } from "../support/device.ts";
import { GpuBatch } from "../support/gpu_batch.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom } from "../support/random.ts";
import { advance, randomBatch, schemes } from "../support/slot_batch.ts";
import { assertPagesOnce, dealPages } from "../support/text_pages.ts";

/** Pages that nobody has, by what the first choice needs. */
type PagesLeft = "plentiful" | "just enough" | "too few" | "too few in one bank" | "none";

interface Case {
  readonly slots?: number;
  readonly most: number;
  readonly shares?: Partial<Record<SlotPhase, number>>;
  /** The phase of the first choice; the others follow in turn. */
  readonly first?: SlotPhase;
  readonly left?: PagesLeft;
  readonly steps?: number;
  readonly shape?: Partial<Pick<PageShape, "blockLayers" | "layers" | "banks" | "tableLength">>;
  /** For slots that leave. */
  readonly when?: { readonly due: number; readonly full: number };
  readonly choices?: number;
  /** Rows of the first choice. */
  readonly chosen?: number;
}

const even = { entering: 0.25, recurring: 0.4, leaving: 0.25 };

const cases: Record<string, Case> = {
  "tidy sizes": { most: 32 },
  "odd sizes": { slots: 192, most: 37, shape: { blockLayers: 3, layers: 5, banks: 2, tableLength: 3 } },
  "640 slots": { slots: 640, most: 100, shape: { blockLayers: 3, layers: 5, banks: 3 } },
  "one row": { most: 1, choices: 9 },
  "one recursion step": { slots: 192, most: 50, steps: 1 },
  "a bank for each layer": { slots: 192, most: 50, shape: { blockLayers: 3, layers: 5, banks: 5 } },
  "no layers around the recursion": { slots: 192, most: 50, shape: { blockLayers: 4, layers: 4, banks: 3 } },
  "no layers in the recursion": { slots: 192, most: 50, shape: { blockLayers: 0, layers: 2 } },
  "no slot in the phase": { most: 20, shares: { entering: 0.5, leaving: 0.5 }, chosen: 0 },
  "all texts ended": { most: 20, shares: {}, chosen: 0 },
  "all slots in the phase, fewer than rows": { most: 80, shares: { recurring: 1 }, chosen: 64 },
  "all slots in the phase, as many as rows": { most: 64, shares: { recurring: 1 }, chosen: 64 },
  "all slots in the phase, more than rows": { slots: 192, most: 64, shares: { recurring: 1 }, chosen: 64 },
  "slots that wait to leave together": { most: 24, when: { due: 24, full: 24 }, choices: 12 },
  "70,016 slots": {
    slots: 70_016,
    most: 50_000,
    steps: 1,
    shape: { blockLayers: 1, layers: 1, tableLength: 2 },
    choices: 3,
  },
};

for (const first of ["recurring", "entering"] as const) {
  for (const left of ["just enough", "too few", "too few in one bank", "none"] as const) {
    for (const banks of left === "too few in one bank" ? [3] : [1, 3]) {
      const name = `pages for ${first} slots, ${banks} ${banks === 1 ? "bank" : "banks"}, ${left}`;
      cases[name] = { slots: 192, most: 60, first, left, shape: { blockLayers: 3, layers: 5, banks } };
    }
  }
}

/** Free pages of each bank before the first choice. */
function pagesLeft(
  batch: reference.TextBatch,
  { phase, left }: { phase: SlotPhase; left: PagesLeft },
): number[] {
  const { slots, layers, banks } = batch.pages.shape;
  const need = reference.slotsInNeed(batch, phase).length;
  return Array.from({ length: banks }, (_, bank) => {
    const ofSlot = reference.layersInNeed(batch.pages, phase).filter((layer) =>
      layer % banks === bank
    ).length;
    if (left === "none") return 0;
    if (left === "just enough") return need * ofSlot;
    const isShort = left === "too few" || (left === "too few in one bank" && bank === 1);
    // One page short of what one slot more would take.
    return isShort ? Math.floor(need / 2) * ofSlot + Math.max(0, ofSlot - 1) : 2 * slots * layers;
  });
}

/** Slots that get no page at the first choice. */
function slotsShort(need: number, left: PagesLeft): number {
  if (left === "none") return need;
  return left.startsWith("too few") ? need - Math.floor(need / 2) : 0;
}

async function checkCase(
  device: GpuDevice,
  { settings, scheme }: { settings: Case; scheme: keyof typeof schemes },
): Promise<void> {
  const { slots = 64, most, first = "recurring", left = "plentiful", steps = 3, choices = 6 } = settings;
  const random = createRandom(11);
  const shape = {
    ...{ slots, groups: schemes[scheme].isShared ? 2 : steps + 1, ...schemes[scheme] },
    ...{ blockLayers: 2, layers: 4, banks: 1, tableLength: 4, ...settings.shape },
  };
  const batch = randomBatch(random, { shape, steps, shares: settings.shares ?? even });
  const need = reference.slotsInNeed(batch, first).length;
  dealPages(random, { pages: batch.pages, left: pagesLeft(batch, { phase: first, left }) });
  const totals = allPages(batch.pages);
  const onGpu = new GpuBatch(device, { batch, most });
  const order = ["recurring", "leaving", "entering"] as const;
  for (let i = 0; i < choices; i++) {
    const phase = order[(order.indexOf(first) + i) % 3]!;
    const label = `${scheme}, choice ${i + 1}, ${phase}`;
    const when = phase === "leaving" ? settings.when : undefined;
    const rows = await onGpu.select({ phase, ...(when && { when }), label });
    if (i === 0) {
      assertEquals(batch.tallies[first].stalled, slotsShort(need, left), label);
      assert(left === "plentiful" || need > 2, label);
      assertEquals(rows.length, settings.chosen ?? rows.length, label);
    }
    assertPagesOnce(batch.pages, { totals, label });
    advance(batch, { phase, rows, steps, random });
  }
}

let hardwareDevice: GpuDevice | null = null;

for (const [name, settings] of Object.entries(cases)) {
  for (const shapes of ["", ", hardware launch shapes"]) {
    gpuTest(`selectSlots matches the model: ${name}${shapes}`, async (device) => {
      const on = shapes === "" ? device : hardwareDevice ??= asHardware(device);
      for (const scheme of Object.keys(schemes) as (keyof typeof schemes)[]) {
        await checkCase(on, { settings, scheme });
      }
    });
  }
}

/** Texts by phase from the first slot on, each with one page; every phase's first turn is at slot `turn`. */
function plainBatch(
  phases: Partial<Record<SlotPhase, number>>,
  { slots = 64, turn, position = 3, left = 0 }: {
    slots?: number;
    turn: number;
    position?: number;
    left?: number;
  },
): reference.TextBatch {
  const names = Object.entries(phases).flatMap(([phase, count]) =>
    new Array<SlotPhase>(count).fill(phase as SlotPhase)
  );
  const texts = Array.from({ length: slots }, (_, slot): reference.SlotText => {
    return { phase: names[slot] ?? "ended", step: 0, depth: 1, position, remaining: 1, token: slot };
  });
  const shape = { slots, groups: 2, blockLayers: 1, layers: 1, banks: 1, tableLength: 2 };
  const pages: TextPages = {
    shape: { ...shape, ...schemes["entries by position"] },
    entries: [0, 1].map(() => new Array<number>(slots).fill(0)),
    held: [[texts.map((_, slot) => [slot]), []]],
    free: [Array.from({ length: left }, (_, i) => slots + i)],
  };
  const tally = (): reference.PhaseTallies => ({ turn, rowsNow: 0, rows: 0, runs: 0, stalled: 0 });
  return { texts, pages, tallies: { entering: tally(), recurring: tally(), leaving: tally() } };
}

gpuTest("selectSlots visits every slot before it visits one again", async (device) => {
  for (const [slots, most, turn] of [[64, 24, 0], [192, 1, 190], [192, 191, 77], [640, 250, 639]] as const) {
    const batch = plainBatch({ recurring: slots }, { slots, turn });
    const onGpu = new GpuBatch(device, { batch, most });
    const visits: number[] = [];
    for (let i = 0; i < 7; i++) {
      const rows = await onGpu.select({ phase: "recurring", label: `${slots} slots, choice ${i + 1}` });
      visits.push(...rows.map(({ slot }) => slot));
    }
    assertEquals(visits, Array.from({ length: 7 * most }, (_, i) => (turn + i) % slots));
  }
});

gpuTest("selectSlots gives the first page that comes free to the slot whose turn it is", async (device) => {
  const batch = plainBatch({ recurring: 64 }, { turn: 62, position: PAGE_ROWS });
  const { texts, pages, tallies } = batch;
  for (let i = 0; i < 5; i++) {
    pages.free[0] = [64 + i];
    const onGpu = new GpuBatch(device, { batch, most: 8 });
    const rows = await onGpu.select({ phase: "recurring", label: `choice ${i + 1}` });
    assertEquals(rows.map(({ slot }) => slot), [(62 + i) % 64]);
    assertEquals(tallies.recurring.stalled, 63 - i);
    texts[(62 + i) % 64]!.phase = "leaving";
  }
});

gpuTest(
  "selectSlots gives pages to slots past the last row, which run next without any more",
  async (device) => {
    const batch = plainBatch({ recurring: 64 }, { turn: 0, position: PAGE_ROWS, left: 40 });
    const onGpu = new GpuBatch(device, { batch, most: 32 });
    const first = await onGpu.select({ phase: "recurring", label: "first choice" });
    assertEquals(first.map(({ slot }) => slot), Array.from({ length: 32 }, (_, i) => i));
    assertEquals([batch.pages.free[0]!.length, batch.tallies.recurring.stalled], [0, 24]);
    for (const { slot } of first) batch.texts[slot]!.phase = "leaving";
    const second = await onGpu.select({ phase: "recurring", label: "second choice" });
    assertEquals(second.map(({ slot }) => slot), Array.from({ length: 8 }, (_, i) => 32 + i));
  },
);

/** Leaving slots, those that recur, how many of these stall, `due`, `full`, and how many are chosen, 16 at most. */
const waits = [
  [9, 8, 0, 10, 8, 0],
  [10, 8, 0, 10, 8, 10],
  [9, 7, 0, 10, 8, 9],
  [9, 8, 1, 10, 8, 9],
  [9, 8, 8, 10, 1, 9],
  [9, 8, 7, 10, 1, 0],
  [9, 0, 0, 10, 0, 0],
  [9, 0, 0, 10, 1, 9],
  [0, 8, 0, 10, 8, 0],
  [0, 0, 0, 10, 8, 0],
  [20, 8, 0, 10, 8, 16],
  [1, 8, 0, 0, 0, 1],
  [63, 1, 0, 65, 1, 0],
  [64, 0, 0, 65, 1, 16],
] as const;

gpuTest("selectSlots lets slots leave when enough are due or too few can recur", async (device) => {
  for (const [leaving, recurring, stalled, due, full, chosen] of waits) {
    const batch = plainBatch({ leaving, recurring }, { turn: 5 });
    batch.tallies.recurring.stalled = stalled;
    const onGpu = new GpuBatch(device, { batch, most: 16 });
    const label = `${leaving} leave, ${recurring} recur, ${stalled} stall, ${due} are due, ${full} full`;
    const rows = await onGpu.select({ phase: "leaving", when: { due, full }, label });
    assertEquals(rows.length, chosen, label);
  }
});

/** Sizes of tensors to record a choice with; those that are not given fit. */
interface Recorded {
  readonly slots?: number;
  readonly layers?: number;
  readonly phase?: SlotPhase;
  readonly counts?: readonly number[];
  readonly tables?: readonly number[];
  readonly tallies?: readonly number[];
  readonly more?: readonly number[];
}

gpuTest("selectSlots refuses tensors that do not fit and more slots than it can loop over", (device) => {
  const plan = planAllocator();
  const u32 = (shape: readonly number[]): Tensor =>
    createTensor(plan, { shape, dtype: "u32", label: "plan" });
  function record(on: GpuDevice, { slots = 64, layers = 1, phase = "entering", ...shapes }: Recorded): void {
    const pages: PageTables = {
      counts: u32(shapes.counts ?? [4, slots]),
      free: u32([1, 5]),
      tables: u32(shapes.tables ?? [layers, 2 * slots]),
      ...{ groups: 2, blockLayers: 1, layers, tableLength: 2, isCounted: false, isShared: true },
    };
    selectSlots(new Commands(on, "test"), {
      slots: u32([SLOT_FIELD_COUNT, slots]),
      pages,
      tallies: u32(shapes.tallies ?? [TALLY_COUNT]),
      packing: fixedPacking(plan, { count: 8 }),
      more: u32(shapes.more ?? [8, 4]),
    }, { phase });
  }
  const wrong = [
    [{ counts: [3, 64] }, "counts has shape (3,64), expected (4,64)"],
    [{ tables: [1, 127] }, "tables has shape (1,127), expected (1,128)"],
    [{ tallies: [23] }, "tallies has shape (23), expected (24)"],
    [{ more: [7] }, "more has shape (7), expected (8)"],
    [{ more: [8], phase: "recurring" }, "more has shape (8), expected (8,4)"],
  ] as const;
  for (const [shapes, message] of wrong) assertThrows(() => record(device, shapes), TypeError, message);
  const message = "Cannot choose among 350016 slots of";
  assertThrows(() => record(device, { slots: 350_016 }), RangeError, `${message} 1 layers in one dispatch`);
  const deeper = { slots: 350_016, layers: 11 };
  assertThrows(() => record(asHardware(device), deeper), RangeError, `${message} 11 layers`);
  return Promise.resolve();
});
