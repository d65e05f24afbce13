/** Choosing slots and moving pages: step by step what plain lists do. */
import { assertEquals, assertGreater, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { PAGE_ROWS, pagesFor } from "../../gpu/kernels/cache_pages.ts";
import { releasePages, reservePages } from "../../gpu/kernels/page_moves.ts";
import { PHASES, TALLIES } from "../../gpu/kernels/slot_fields.ts";
import { selectSlots } from "../../gpu/kernels/slot_select.ts";
import { fixedPacking, type Packing } from "../../gpu/packing.ts";
import { readTensors } from "../../gpu/readback.ts";
import { writeTensor } from "../../gpu/tensor.ts";
import {
  type BatchSizes,
  type BatchSlots,
  emptySlots,
  type Phase,
  release,
  reserve,
  select,
} from "../reference/batch_slots.ts";
import { assertPages, type SlotTensors, uploadSlots } from "../support/batch_slots.ts";
import { blankIndices, gpuTest, run, uploadIndices } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom, type Random } from "../support/random.ts";

const TABLE_LENGTH = 4;

const plain: BatchSizes = {
  slots: 64,
  stepGroups: 3,
  blockLayers: 2,
  endLayers: 2,
  banks: 1,
  tableLength: TABLE_LENGTH,
  pageRows: PAGE_ROWS,
  isCounted: true,
  isShared: false,
};

const batches: Readonly<Record<string, BatchSizes>> = {
  "counted entries": plain,
  "entries by position": { ...plain, isCounted: false },
  "shared keys": { ...plain, stepGroups: 1, isCounted: false, isShared: true },
  "one step and no ends, as vanilla": {
    ...plain,
    stepGroups: 1,
    blockLayers: 5,
    endLayers: 0,
    isCounted: false,
  },
  "several banks": { ...plain, blockLayers: 3, banks: 2 },
  "a bank for each layer": { ...plain, blockLayers: 3, banks: 5 },
  "640 slots": { ...plain, slots: 640 },
};

const devices: Readonly<Record<string, (device: GpuDevice) => GpuDevice>> = {
  "as on software": (device) => device,
  "as on hardware": asHardware,
};

type Choosing = Parameters<typeof select>[2];

/** Runs a choice on the device and on the lists, which it changes, and compares everything. */
async function checkChoice(
  device: GpuDevice,
  { state, sizes }: { state: BatchSlots; sizes: BatchSizes },
  choosing: Choosing,
): Promise<number> {
  const tensors = uploadSlots(device, state, sizes);
  const { phase, most, due, full } = choosing;
  const packing = fixedPacking(device, { count: most });
  const more = blankIndices(device, [most * 4]);
  const [records, rows, extra, tallies] = await run(
    device,
    (commands) => selectSlots(commands, { ...tensors, packing, more }, { phase, due, full }),
    [packing.records, packing.rows.count, more, tensors.tallies],
  );
  const wanted = select(state, sizes, choosing);
  const count = wanted.records.length;
  assertEquals(Array.from(rows!), [count], "rows");
  assertEquals(Array.from(records!.subarray(0, count * 4)), wanted.records.flat(), "records");
  assertEquals(Array.from(extra!.subarray(0, wanted.more.length)), wanted.more, "more");
  const at = (first: number): number => tallies![first + PHASES[phase]]!;
  assertEquals(
    [at(TALLIES.turn), at(TALLIES.rowsNow), at(TALLIES.rows), at(TALLIES.runs), at(TALLIES.stalled)],
    [state.turn[phase], count, count, Number(count > 0), state.stalled[phase]],
    "tallies",
  );
  await assertPages(device, tensors, { state, sizes });
  return count;
}

/** What the host's part of a batch does to slots by chance: texts begin, run, leave and end. */
function shuffleTexts(random: Random, state: BatchSlots, sizes: BatchSizes): void {
  const phases: Phase[] = ["ended", "entering", "recurring", "recurring", "leaving"];
  state.slots.forEach((slot, i) => {
    if (random.uniform() < 0.4) slot.phase = phases[random.integer(phases.length)]!;
    slot.step = random.integer(sizes.isShared ? 3 : sizes.stepGroups);
    slot.token = random.integer(1000);
    // A text's entries are never more than one past its pages, and fit its tables.
    const held = state.pages.map((layers) => (layers[0]?.[i] ?? []).length);
    const most = Math.min(
      TABLE_LENGTH * PAGE_ROWS - 1,
      Math.min(...held.filter((_, g) => state.pages[g]!.length > 0)) * PAGE_ROWS,
    );
    slot.position = random.uniform() < 0.5 ? most : random.integer(most + 1);
    if (slot.phase === "ended") return;
    for (let group = 0; group < sizes.stepGroups && sizes.isCounted; group++) {
      const room = Math.min(TABLE_LENGTH * PAGE_ROWS - 1, held[group]! * PAGE_ROWS);
      state.entries[group]![i] = random.uniform() < 0.5 ? room : random.integer(room + 1);
    }
  });
}

for (const [kind, choose] of Object.entries(devices)) {
  for (const [name, sizes] of Object.entries(batches)) {
    gpuTest(`slots are chosen and get pages as in plain lists: ${name}, ${kind}`, async (device) => {
      const random = createRandom(3);
      const chosen = choose(device);
      for (const bankPages of [0, 7, 60, 4000]) {
        const state = emptySlots(sizes, new Array<number>(sizes.banks).fill(bankPages));
        for (let round = 0; round < 8; round++) {
          shuffleTexts(random, state, sizes);
          for (const phase of ["recurring", "leaving", "entering"] as const) {
            const most = 1 + random.integer(round % 2 === 0 ? 9 : 2 * sizes.slots);
            const [due, full] = [random.integer(sizes.slots), random.integer(sizes.slots)];
            await checkChoice(chosen, { state, sizes }, { phase, most, due, full });
          }
          for (let slot = 0; slot < sizes.slots; slot++) {
            if (state.slots[slot]!.phase === "ended") release(state, sizes, slot);
          }
        }
      }
    });
  }
}

gpuTest("every slot has its turn before any has two", async (device) => {
  const state = emptySlots(plain, [4000]);
  for (const slot of state.slots) slot.phase = "leaving";
  const visits = new Array<number>(plain.slots).fill(0);
  for (let round = 0; round < 13; round++) {
    const turn = state.turn.leaving;
    const count = await checkChoice(device, { state, sizes: plain }, {
      phase: "leaving",
      most: 10,
      due: 0,
      full: 0,
    });
    for (let i = 0; i < count; i++) visits[(turn + i) % plain.slots]!++;
  }
  assertEquals([Math.min(...visits), Math.max(...visits)], [2, 3]);
});

gpuTest("those that leave wait for each other while the block is full", async (device) => {
  const state = emptySlots(plain, [4000]);
  state.slots.forEach((slot, i) => slot.phase = i < 5 ? "leaving" : i < 25 ? "recurring" : "ended");
  const count = async (due: number, full: number): Promise<number> =>
    await checkChoice(device, { state, sizes: plain }, { phase: "leaving", most: 8, due, full });
  assertEquals(await count(6, 20), 0);
  assertEquals(await count(5, 20), 5);
  assertEquals(await count(6, 21), 5);
  state.stalled.recurring = 1;
  assertEquals(await count(6, 20), 5);
});

/** Runs a move of pages on the device for some rows, on tensors that hold the lists' state before it. */
async function move(
  device: GpuDevice,
  { tensors, records }: { tensors: SlotTensors; records: readonly (readonly number[])[] },
  record: (commands: Commands, move: SlotTensors & { packing: Packing }) => void,
): Promise<void> {
  const packing = fixedPacking(device, { count: records.length + 3 });
  writeTensor(device, packing.records, Uint32Array.from(records.flat()));
  writeTensor(device, packing.rows.count, Uint32Array.of(records.length));
  await run(device, (commands) => record(commands, { ...tensors, packing }), []);
}

for (const [name, sizes] of Object.entries(batches)) {
  gpuTest(`pages are reserved and given back, each of them once: ${name}`, async (device) => {
    const random = createRandom(4);
    const perText = (sizes.stepGroups * sizes.blockLayers + sizes.endLayers) * TABLE_LENGTH;
    const state = emptySlots(sizes, new Array<number>(sizes.banks).fill(perText * 20));
    const live = new Set<number>();
    let tensors = uploadSlots(device, state, sizes);
    let moved = 0;
    for (let round = 0; round < 40; round++) {
      const slot = random.integer(20);
      if (!live.has(slot)) {
        live.add(slot);
        const start = 0;
        const tokens = 1 + random.integer(TABLE_LENGTH * PAGE_ROWS);
        state.slots[slot]!.phase = "entering";
        tensors = uploadSlots(device, state, sizes);
        reserve(state, sizes, { slot, tokens, start });
        await move(device, { tensors, records: [[slot, tokens, start, 0]] }, reservePages);
        for (let group = 0; group < sizes.stepGroups && sizes.isCounted; group++) {
          state.entries[group]![slot] = random.integer(tokens + 1);
        }
      } else {
        // Several rows at once: those that end give back all, those that go on what they did not need.
        const slots = [...live].filter(() => random.uniform() < 0.5);
        for (const one of slots) if (random.uniform() < 0.5) state.slots[one]!.phase = "ended";
        tensors = uploadSlots(device, state, sizes);
        for (const one of slots) release(state, sizes, one);
        for (const one of slots) if (state.slots[one]!.phase === "ended") live.delete(one);
        await move(device, { tensors, records: slots.map((one) => [one, 9, 9, 9]) }, releasePages);
        moved += slots.length;
        await assertPages(device, tensors, { state, sizes, anyOrder: true });
        // Once more changes nothing.
        const [before] = await readTensors(device, [tensors.pages.free]);
        await move(device, { tensors, records: slots.map((one) => [one, 9, 9, 9]) }, releasePages);
        const [after] = await readTensors(device, [tensors.pages.free]);
        assertEquals(after, before);
        continue;
      }
      const counted = {
        ...tensors,
        pages: { ...tensors.pages, counts: uploadSlots(device, state, sizes).pages.counts },
      };
      await assertPages(device, counted, { state, sizes, anyOrder: true });
    }
    assertGreater(moved, 10);
  });
}

gpuTest("choices and moves refuse shapes that do not fit", (device) => {
  const state = emptySlots(plain, [100]);
  const tensors = uploadSlots(device, state, plain);
  const packing = fixedPacking(device, { count: 4 });
  const more = blankIndices(device, [3]);
  const record = (changes: Partial<SlotTensors>): void => {
    selectSlots(new Commands(device, "test"), { ...tensors, ...changes, packing, more }, {
      phase: "entering",
    });
  };
  assertThrows(() => record({}), TypeError, "more has shape (3), expected (4)");
  assertThrows(
    () => record({ slots: uploadIndices(device, new Uint32Array(5 * 64), [5, 64]) }),
    TypeError,
    "slots",
  );
  assertThrows(() => record({ tallies: blankIndices(device, [3]) }), TypeError, "tallies");
  const { pages } = tensors;
  assertThrows(() => record({ pages: { ...pages, tableLength: pagesFor(9000) } }), TypeError, "tables");
  assertThrows(() => record({ pages: { ...pages, groups: 9 } }), TypeError, "counts");
  return Promise.resolve();
});
