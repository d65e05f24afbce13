import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { PAGE_ROWS } from "../../gpu/kernels/cache_pages.ts";
import { releasePages, reservePages } from "../../gpu/kernels/page_moves.ts";
import { SLOT_FIELD_COUNT, type SlotPhase } from "../../gpu/kernels/slot_fields.ts";
import { planAllocator } from "../../gpu/memory.ts";
import { fixedPacking } from "../../gpu/packing.ts";
import { createTensor, type Tensor } from "../../gpu/tensor.ts";
import type { TextBatch } from "../reference/slot_select.ts";
import {
  allPages,
  layersOf,
  pageCount,
  type PageMoveRow,
  type PageShape,
  reservedCount,
} from "../reference/text_pages.ts";
import { gpuTest } from "../support/device.ts";
import { GpuBatch } from "../support/gpu_batch.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom, type Random } from "../support/random.ts";
import { assertSame, randomBatch, schemes } from "../support/slot_batch.ts";
import { dealPages, pageData, pagesOf, shuffled } from "../support/text_pages.ts";

interface Case {
  readonly slots?: number;
  readonly rows: number;
  readonly steps?: number;
  readonly shares?: Partial<Record<SlotPhase, number>>;
  readonly shape?: Partial<Pick<PageShape, "blockLayers" | "layers" | "banks" | "tableLength">>;
  /** Tokens of each row, from the first position on; by chance and from the text's position on unless told. */
  readonly tokens?: number;
  /** Pages of each bank that nobody has after the first move. */
  readonly spare?: number;
}

const even = { entering: 0.3, recurring: 0.3, leaving: 0.3 };

const cases: Record<string, Case> = {
  "tidy sizes": { rows: 32 },
  "odd sizes": { slots: 192, rows: 37, shape: { blockLayers: 3, layers: 5, banks: 2, tableLength: 3 } },
  "640 slots at once": { slots: 640, rows: 640, shape: { blockLayers: 3, layers: 5, banks: 3 } },
  "one row": { rows: 1 },
  "no rows": { rows: 0 },
  "no page to spare": { slots: 192, rows: 90, shape: { blockLayers: 3, layers: 5, banks: 2 }, spare: 0 },
  "one recursion step": { slots: 192, rows: 50, steps: 1 },
  "a bank for each layer": { slots: 192, rows: 50, shape: { blockLayers: 3, layers: 5, banks: 5 } },
  "no layers around the recursion": { slots: 192, rows: 50, shape: { blockLayers: 4, layers: 4, banks: 3 } },
  "no layers in the recursion": { slots: 192, rows: 50, shape: { blockLayers: 0, layers: 2 } },
  "slots that have nothing": { rows: 30, shares: {}, tokens: 40 },
  "no tokens": { rows: 30, tokens: 0 },
  "70,000 pages": {
    rows: 3,
    steps: 1,
    shares: {},
    shape: { blockLayers: 1, layers: 1, tableLength: 70_000 },
    tokens: 70_000 * PAGE_ROWS,
  },
};

/** Rows of different slots in any order. */
function randomRows(
  random: Random,
  { batch: { texts, pages: { shape } }, settings: { rows, tokens } }: { batch: TextBatch; settings: Case },
): PageMoveRow[] {
  return shuffled(random, shape.slots).slice(0, rows).map((slot) => {
    if (tokens !== undefined) return { slot, tokens, start: 0 };
    const { position } = texts[slot]!;
    return { slot, tokens: random.integer(shape.tableLength * PAGE_ROWS - position + 1), start: position };
  });
}

/** Pages of each bank that the rows take when they are reserved. */
function pagesTaken({ pages }: TextBatch, rows: readonly PageMoveRow[]): number[] {
  const { shape } = pages;
  const taken = new Array<number>(shape.banks).fill(0);
  for (let group = 0; group < shape.groups; group++) {
    for (const row of rows) {
      const more = reservedCount(pages, { ...row, group }) - pageCount(pages, { slot: row.slot, group });
      for (const layer of layersOf(shape, group)) taken[layer % shape.banks]! += more;
    }
  }
  return taken;
}

async function checkCase(
  device: GpuDevice,
  { settings, scheme }: { settings: Case; scheme: keyof typeof schemes },
): Promise<void> {
  const { slots = 64, steps = 3, spare = 9 } = settings;
  const random = createRandom(12);
  const shape = {
    ...{ slots, groups: schemes[scheme].isShared ? 2 : steps + 1, ...schemes[scheme] },
    ...{ blockLayers: 2, layers: 4, banks: 1, tableLength: 4, ...settings.shape },
  };
  const batch = randomBatch(random, { shape, steps, shares: settings.shares ?? even });
  const rows = randomRows(random, { batch, settings });
  const left = pagesTaken(batch, rows).map((taken) => taken + spare);
  dealPages(random, { pages: batch.pages, left });
  const totals = allPages(batch.pages);
  const onGpu = new GpuBatch(device, { batch, most: 1 });

  await onGpu.move({ kind: "reserve", rows, label: `${scheme}, reserve` });
  assertEquals(batch.pages.free.map((list) => list.length), left.map(() => spare));
  await onGpu.move({ kind: "reserve", rows, label: `${scheme}, reserve again` });

  // Some of the rows give back all, the others what they did not need.
  for (const { slot } of rows) {
    batch.texts[slot]!.phase = random.uniform() < 0.4 ? "ended" : "recurring";
  }
  for (const label of [`${scheme}, release`, `${scheme}, release again`]) {
    const before = onGpu.data;
    await onGpu.move({ kind: "release", rows, label });
    if (label.endsWith("again")) assertSame(onGpu.data.free, before.free, `${label}: free pages`);
  }

  for (const text of batch.texts) text.phase = "ended";
  const all = shuffled(random, slots).map((slot) => ({ slot, tokens: 9, start: 9 }));
  await onGpu.move({ kind: "release", rows: all, label: `${scheme}, the end` });
  assertEquals(batch.pages.free.map((list) => list.length), totals);
  assertSame(onGpu.data.counts, new Uint32Array(onGpu.data.counts.length), `${scheme}, the end: counts`);
}

for (const [name, settings] of Object.entries(cases)) {
  for (const scheme of Object.keys(schemes) as (keyof typeof schemes)[]) {
    gpuTest(`reservePages and releasePages match the model: ${name}, ${scheme}`, async (device) => {
      await checkCase(device, { settings, scheme });
    });
  }
}

gpuTest(
  "reservePages and releasePages match the model on a device with hardware launch shapes",
  async (device) => {
    const hardware = asHardware(device);
    await checkCase(hardware, { settings: cases["odd sizes"]!, scheme: "counted entries" });
  },
);

gpuTest("reservePages and releasePages refuse tensors that do not fit", (device) => {
  const plan = planAllocator();
  const u32 = (shape: readonly number[]): Tensor =>
    createTensor(plan, { shape, dtype: "u32", label: "plan" });
  for (const [name, record] of Object.entries({ reservePages, releasePages })) {
    const refuse = (changes: { slots?: number; counts?: number; tables?: number }, message: string): void => {
      const pages = {
        counts: u32([changes.counts ?? 4, 64]),
        free: u32([1, 5]),
        tables: u32([2, changes.tables ?? 128]),
        ...{ groups: 2, blockLayers: 1, layers: 2, tableLength: 2, isCounted: false, isShared: false },
      };
      const slots = u32([changes.slots ?? SLOT_FIELD_COUNT, 64]);
      const packing = fixedPacking(plan, { count: 8 });
      const commands = new Commands(device, "test");
      assertThrows(
        () => record(commands, { slots, pages, packing }),
        TypeError,
        `Cannot record ${name}: ${message}`,
      );
    };
    refuse({ slots: 5 }, "slots has shape (5,64), expected (6,64)");
    refuse({ counts: 3 }, "counts has shape (3,64), expected (4,64)");
    refuse({ tables: 127 }, "tables has shape (2,127), expected (2,128)");
  }
  return Promise.resolve();
});

Deno.test("pagesOf reads lists of pages from what pageData writes", () => {
  const random = createRandom(3);
  for (const scheme of Object.values(schemes)) {
    const shape = { slots: 64, groups: 3, blockLayers: 3, layers: 5, banks: 2, tableLength: 4, ...scheme };
    const { pages } = randomBatch(random, { shape, steps: 2, shares: even });
    dealPages(random, { pages, left: [5, 9] });
    assertEquals(pagesOf(shape, pageData(pages)), pages);
  }
});
