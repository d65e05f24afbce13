/** Hundreds of operations by chance on the pages of a batch: after each, every page is in one list. */
import { assertEquals, assertGreater } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { PAGE_ROWS, pagesFor } from "../../gpu/kernels/cache_pages.ts";
import type { SlotPhase } from "../../gpu/kernels/slot_fields.ts";
import { allPages, layersOf, type PageShape } from "../reference/text_pages.ts";
import { gpuTest } from "../support/device.ts";
import { GpuBatch } from "../support/gpu_batch.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom, type Random } from "../support/random.ts";
import { advance, randomBatch, schemes } from "../support/slot_batch.ts";
import { assertPagesOnce, dealPages } from "../support/text_pages.ts";

const OPERATIONS = 600;
const STEPS = 3;
/** Pages are for so many texts of full length, so that slots stall now and then. */
const FULL_TEXTS = 3;

interface Walk {
  readonly onGpu: GpuBatch;
  readonly random: Random;
  /** Texts that began, ended and were stopped. */
  readonly seen: { began: number; ended: number; stopped: number; stalled: number };
}

/** Pages of each bank that the entries of some tokens take at full depth. */
function mostPages(shape: PageShape, tokens: number): number[] {
  const pages = new Array<number>(shape.banks).fill(0);
  for (let group = 0; group < shape.groups; group++) {
    for (const layer of layersOf(shape, group)) pages[layer % shape.banks]! += pagesFor(tokens);
  }
  return pages;
}

/** Begins a text in an empty slot, if there is one and its prompt's tokens find room. */
async function begin({ onGpu, random, seen }: Walk, label: string): Promise<void> {
  const { texts, pages: { shape, free } } = onGpu.batch;
  const slot = texts.findIndex(({ phase }) => phase === "ended");
  const tokens = random.integer(2 * PAGE_ROWS);
  const hasRoom = mostPages(shape, tokens).every((count, bank) => count <= free[bank]!.length);
  if (slot < 0 || !hasRoom) return;
  seen.began++;
  texts[slot] = { phase: "entering", step: 0, depth: 1, position: tokens, remaining: 9, token: seen.began };
  await onGpu.move({ kind: "reserve", rows: [{ slot, tokens, start: 0 }], label: `${label}, reserve` });
  if (shape.isCounted) {
    let entries = tokens;
    const counts = Array.from({ length: shape.groups - 1 }, () => entries = random.integer(entries + 1));
    onGpu.writeEntries(slot, counts);
  }
  await onGpu.move({ kind: "release", rows: [{ slot, tokens: 0, start: 0 }], label: `${label}, trim` });
}

/** Slots in the phase run; those whose texts end give back their pages. */
async function runPhase(
  { onGpu, random, seen }: Walk,
  { phase, label }: { phase: SlotPhase; label: string },
): Promise<void> {
  const { batch } = onGpu;
  const rows = await onGpu.select({ phase, label });
  seen.stalled += batch.tallies[phase].stalled;
  advance(batch, { phase, rows, steps: STEPS, random });
  if (phase !== "leaving") return;
  seen.ended += rows.filter(({ slot }) => batch.texts[slot]!.phase === "ended").length;
  const moved = rows.map(({ slot, entry }) => ({ slot, tokens: entry, start: 0 }));
  await onGpu.move({ kind: "release", rows: moved, label: `${label}, release` });
}

/** Takes texts out wherever they are. */
async function stop({ onGpu, random, seen }: Walk, label: string): Promise<void> {
  const { texts } = onGpu.batch;
  const live = [...texts.keys()].filter((slot) => texts[slot]!.phase !== "ended" && random.uniform() < 0.4);
  seen.stopped += live.length;
  for (const slot of live) texts[slot]!.phase = "ended";
  const rows = live.map((slot) => ({ slot, tokens: 0, start: 0 }));
  await onGpu.move({ kind: "release", rows, label });
}

async function walk(
  device: GpuDevice,
  { scheme, banks, seed }: { scheme: keyof typeof schemes; banks: number; seed: number },
): Promise<void> {
  const random = createRandom(seed);
  const groups = schemes[scheme].isShared ? 2 : STEPS + 1;
  const shape = {
    ...{ slots: 64, groups, blockLayers: 3, layers: 5, banks, tableLength: 4 },
    ...schemes[scheme],
  };
  const batch = randomBatch(random, { shape, steps: STEPS, shares: {} });
  const totals = mostPages(shape, shape.tableLength * PAGE_ROWS).map((pages) => FULL_TEXTS * pages);
  dealPages(random, { pages: batch.pages, left: totals });
  const onGpu = new GpuBatch(device, { batch, most: 12 });
  const seen = { began: 0, ended: 0, stopped: 0, stalled: 0 };
  for (let i = 0; i < OPERATIONS; i++) {
    const draw = random.uniform();
    const label = `operation ${i + 1} of ${scheme}`;
    if (draw < 0.25) await begin({ onGpu, random, seen }, `${label}, begin`);
    else if (draw < 0.97) {
      const phase = draw < 0.45 ? "entering" : draw < 0.8 ? "recurring" : "leaving";
      await runPhase({ onGpu, random, seen }, { phase, label: `${label}, ${phase}` });
    } else await stop({ onGpu, random, seen }, `${label}, stop`);
    assertEquals(allPages(batch.pages), totals, label);
    assertPagesOnce(batch.pages, { totals, label });
  }
  for (const [what, count] of Object.entries(seen)) assertGreater(count, 5, `${scheme}: ${what}`);
  for (const text of batch.texts) text.phase = "ended";
  const rows = [...batch.texts.keys()].map((slot) => ({ slot, tokens: 0, start: 0 }));
  await onGpu.move({ kind: "release", rows, label: `${scheme}, the end` });
  assertEquals(batch.pages.free.map((list) => list.length), totals);
}

for (const scheme of Object.keys(schemes) as (keyof typeof schemes)[]) {
  for (const banks of [1, 3]) {
    const name = `${OPERATIONS} random operations keep every page in one place: ${scheme}, ${
      banks === 1 ? "one bank" : `${banks} banks`
    }`;
    gpuTest(name, (device) => walk(device, { scheme, banks, seed: 21 }));
    gpuTest(
      `${name}, hardware launch shapes`,
      (device) => walk(asHardware(device), { scheme, banks, seed: 22 }),
    );
  }
}
