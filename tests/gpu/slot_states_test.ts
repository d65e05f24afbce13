import { assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { SLOT_FIELD_COUNT } from "../../gpu/kernels/slot_fields.ts";
import { enterStates, recurStates } from "../../gpu/kernels/slot_states.ts";
import { fixedPacking, type Packing } from "../../gpu/packing.ts";
import { writeTensor } from "../../gpu/tensor.ts";
import type { SlotText } from "../reference/slot_select.ts";
import { blank, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { asHardware } from "../support/hardware.ts";
import { recordRows } from "../support/packing.ts";
import { createRandom, type Random } from "../support/random.ts";
import { caseRows, manyRows, type RowCase, rowCases } from "../support/row_cases.ts";
import { assertSame, randomText, slotData } from "../support/slot_batch.ts";
import { shuffled } from "../support/text_pages.ts";

/** A rounding or two of the largest value. */
const relative = 3e-7;

const gatings = {
  weighted: (x: number, z: number, w: number): number => x + w * z,
  additive: (x: number, z: number): number => x + z,
  replace: (_: number, z: number): number => z,
  delta: (x: number, z: number, w: number): number => x + w * (z - x),
} as const;

/** Rows in any slots, and all that the kernels read and write. */
interface States {
  readonly packing: Packing;
  /** The slots of the rows. */
  readonly rows: readonly number[];
  readonly texts: SlotText[];
  readonly dim: number;
  readonly states: Float32Array<ArrayBuffer>;
  readonly starts: Float32Array<ArrayBuffer>;
  readonly z: Float32Array<ArrayBuffer>;
  readonly gates: Float32Array<ArrayBuffer>;
}

/** With `isFixed` launches are for all rows that there is room for, and the count says how many run. */
function randomStates(
  device: GpuDevice,
  { count, maximum, dim, isFixed = false }: Pick<RowCase, "count" | "maximum" | "dim"> & {
    isFixed?: boolean;
  },
): States {
  const random = createRandom(13);
  const slots = Math.ceil((maximum + 1) / 64) * 64;
  const all = shuffled(random, slots).slice(0, maximum);
  const records = uploadIndices(device, all.flatMap((slot) => [slot, 5, 6, 7]), [maximum, 4]);
  const fixed = fixedPacking(device, { count: maximum }).rows;
  writeTensor(device, fixed.count, Uint32Array.of(count));
  const draw = (length: number): Float32Array<ArrayBuffer> => Float32Array.from(random.normals(length));
  return {
    packing: { rows: isFixed ? fixed : caseRows(device, { count, maximum }), records },
    rows: all.slice(0, count),
    texts: Array.from({ length: slots }, () => textInRecursion(random)),
    dim,
    states: draw(slots * dim),
    starts: draw(slots * dim),
    z: draw(maximum * dim),
    gates: draw(slots),
  };
}

/** At any step before the last that it is to run. */
function textInRecursion(random: Random): SlotText {
  const text = randomText(random, { phase: "recurring", capacity: 64, steps: 3 });
  return { ...text, depth: text.step + 1 + random.integer(2) };
}

const cases: readonly (RowCase & { readonly isFixed?: boolean })[] = [
  ...rowCases,
  { name: "fewer rows than a fixed packing has room for", count: 11, maximum: 70, dim: 24, isFixed: true },
  manyRows,
];

for (const rowCase of cases) {
  for (const base of ["none", "state", "start"] as const) {
    gpuTest(`recurStates joins a step's output to ${base} with ${rowCase.name}`, async (opened) => {
      for (const [gating, join] of Object.entries(gatings)) {
        // Half of the gatings take the device as a hardware GPU.
        const device = gating === "delta" || gating === "additive" ? asHardware(opened) : opened;
        const { packing, rows, texts, dim, ...values } = randomStates(device, rowCase);
        const shape = [texts.length, dim];
        const slots = uploadIndices(device, slotData(texts), [SLOT_FIELD_COUNT, texts.length]);
        const states = upload(device, values.states, shape);
        const starts = upload(device, values.starts, shape);
        const gates = upload(device, values.gates);
        const z = upload(device, values.z, [packing.rows.maximum, dim]);
        const tensors = { z, packing, slots, gates, states, starts: base === "start" ? starts : null };
        const [met, keptStarts, keptSlots] = await run(device, (commands) => {
          recordRows(commands, packing.rows);
          recurStates(commands, tensors, { base, gating: gating as keyof typeof gatings });
        }, [states, starts, slots]);

        const expected = Float64Array.from(values.states);
        // Where nothing joins, the output's bits stay; so do those of slots that did not run.
        const exact = Float32Array.from(values.states);
        rows.forEach((slot, row) => {
          const { step, depth } = texts[slot]!;
          const joins = base === "state" || (base === "start" && step + 1 === depth);
          for (let c = 0; c < dim; c++) {
            const [place, output] = [slot * dim + c, values.z[row * dim + c]!];
            const x = (base === "start" ? values.starts : values.states)[place]!;
            expected[place] = joins ? join(x, output, values.gates[slot]!) : output;
            exact[place] = joins ? met![place]! : output;
          }
        });
        assertClose(met!, expected, { relative, label: `${gating}: states` });
        assertSame(met!, exact, `${gating}: states that nothing joins`);
        assertSame(keptStarts!, values.starts, `${gating}: starts`);
        assertSame(keptSlots!, slotData(texts), `${gating}: slots`);
      }
    });
  }

  for (const hasStarts of [true, false]) {
    const name = `enterStates sets the states${hasStarts ? " and starts" : " alone"} with ${rowCase.name}`;
    gpuTest(name, async (device) => {
      const { packing, rows, texts, dim, ...values } = randomStates(device, rowCase);
      const shape = [texts.length, dim];
      const states = upload(device, values.states, shape);
      const starts = upload(device, values.starts, shape);
      const z = upload(device, values.z, [packing.rows.maximum, dim]);
      const [metStates, metStarts] = await run(device, (commands) => {
        recordRows(commands, packing.rows);
        enterStates(commands, { z, packing, states, starts: hasStarts ? starts : null });
      }, [states, starts]);
      rows.forEach((slot, row) => {
        const output = values.z.subarray(row * dim, (row + 1) * dim);
        values.states.set(output, slot * dim);
        if (hasStarts) values.starts.set(output, slot * dim);
      });
      assertSame(metStates!, values.states, "states");
      assertSame(metStarts!, values.starts, "starts");
    });
  }
}

gpuTest("enterStates and recurStates refuse tensors that do not fit", (device) => {
  const packing = fixedPacking(device, { count: 8 });
  const states = blank(device, [64, 12]);
  const commands = new Commands(device, "test");
  const slots = uploadIndices(device, new Uint32Array(SLOT_FIELD_COUNT * 64), [SLOT_FIELD_COUNT, 64]);
  const tensors = {
    z: blank(device, [8, 12]),
    packing,
    slots,
    gates: blank(device, [64]),
    states,
    starts: null,
  };
  const settings = { base: "none", gating: "replace" } as const;
  const narrow = { ...tensors, z: blank(device, [8, 16]) };
  assertThrows(() => enterStates(commands, narrow), TypeError, "enterStates: z has shape (8,16)");
  assertThrows(() => recurStates(commands, narrow, settings), TypeError, "recurStates: z has shape (8,16)");
  const starts = blank(device, [63, 12]);
  assertThrows(() => enterStates(commands, { ...tensors, starts }), TypeError, "starts has shape (63,12)");
  const joins = { base: "start", gating: "additive" } as const;
  assertThrows(() => recurStates(commands, tensors, joins), TypeError, "before the recursion are missing");
  const few = { ...tensors, gates: blank(device, [63]) };
  assertThrows(() => recurStates(commands, few, settings), TypeError, "gates has shape (63)");
  return Promise.resolve();
});
