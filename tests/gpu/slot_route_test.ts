/** Where tokens go in a depth-wise batch, what they leave in their slots, and how their draw ends. */
import { assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { finishTokens } from "../../gpu/kernels/slot_finish.ts";
import { PHASES, SLOT_FIELDS, TALLIES, TALLY_COUNT } from "../../gpu/kernels/slot_fields.ts";
import { enterAll, enterByDepth, recurByDepth, routeByScore } from "../../gpu/kernels/slot_route.ts";
import { enterStates, recurStates } from "../../gpu/kernels/slot_states.ts";
import { fixedPacking, type Packing } from "../../gpu/packing.ts";
import { type Tensor, type TensorData, writeTensor } from "../../gpu/tensor.ts";
import { assertClose } from "../support/close.ts";
import { blank, blankIndices, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { createRandom } from "../support/random.ts";

const SLOTS = 64;

type Fields = Partial<Record<keyof typeof SLOT_FIELDS, number>>;

/** Slots with the given fields; 7 for the others. */
function uploadFields(device: GpuDevice, fields: Readonly<Record<number, Fields>>): Tensor {
  const data = new Uint32Array(6 * SLOTS).fill(7);
  for (const [slot, values] of Object.entries(fields)) {
    for (const [name, value] of Object.entries(values)) {
      data[SLOT_FIELDS[name as keyof Fields] * SLOTS + Number(slot)] = value;
    }
  }
  return uploadIndices(device, data, [6, SLOTS]);
}

/** The fields of slots that are not 7. */
function fieldsOf(data: TensorData): Record<number, Fields> {
  const fields: Record<number, Fields> = {};
  for (const [name, row] of Object.entries(SLOT_FIELDS)) {
    for (let slot = 0; slot < SLOTS; slot++) {
      const value = data[row * SLOTS + slot]!;
      if (value !== 7) fields[slot] = { ...fields[slot], [name]: value };
    }
  }
  return fields;
}

/** Rows of the given slots, with room for some more whose records are of slot 63. */
function rowsOf(device: GpuDevice, slots: readonly number[]): Packing {
  const packing = fixedPacking(device, { count: slots.length + 5 });
  const records = new Uint32Array(packing.rows.maximum * 4).fill(63);
  slots.forEach((slot, row) => records[row * 4] = slot);
  writeTensor(device, packing.records, records);
  writeTensor(device, packing.rows.count, Uint32Array.of(slots.length));
  return packing;
}

/** Values for rows, NaN for the spare ones. */
function perRow(device: GpuDevice, rows: readonly (readonly number[])[]): Tensor {
  const width = rows[0]?.length ?? 1;
  const data = new Float32Array((rows.length + 5) * width).fill(NaN);
  data.set(rows.flat());
  return upload(device, data, width === 1 ? [rows.length + 5] : [rows.length + 5, width]);
}

const { entering, recurring, leaving, ended } = PHASES;

gpuTest("every token of a model without router is to run all steps", async (device) => {
  const slots = uploadFields(device, {});
  const packing = rowsOf(device, [9, 2]);
  const [data] = await run(device, (commands) => enterAll(commands, { slots, packing }, { steps: 3 }), [
    slots,
  ]);
  const wanted = { phase: recurring, step: 0, depth: 3 };
  assertEquals(fieldsOf(data!), { 2: wanted, 9: wanted });
});

gpuTest("tokens enter for the depth that their router gave them, and leave after it", async (device) => {
  const slots = uploadFields(device, {});
  const packing = rowsOf(device, [5, 0, 62]);
  const gates = blank(device, [SLOTS], 7);
  const [data, gated] = await run(device, (commands) => {
    const depths = perRow(device, [[1], [3], [2]]);
    const rowGates = perRow(device, [[0.5], [0.25], [0.125]]);
    enterByDepth(commands, { slots, packing, depths, rowGates, gates });
    recurByDepth(commands, { slots, packing });
  }, [slots, gates]);
  assertEquals(fieldsOf(data!), {
    5: { phase: leaving, step: 1, depth: 1 },
    0: { phase: recurring, step: 1, depth: 3 },
    62: { phase: recurring, step: 1, depth: 2 },
  });
  assertEquals([gated![5], gated![0], gated![62], gated![63]], [0.5, 0.25, 0.125, 7]);
});

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

for (const isEntry of [true, false]) {
  gpuTest(`scores above the threshold go on, ${isEntry ? "at entry" : "after a step"}`, async (device) => {
    const thresholds = [-3.4e38, 0, 0.5];
    // Steps run before: the score of the one that is next decides.
    const before = [0, 0, 1, 1, 2];
    const slotsOf = [4, 8, 15, 16, 23];
    const fields = slotsOf.map((slot, i) => [slot, { step: isEntry ? 9 : before[i]! }] as const);
    const slots = uploadFields(device, Object.fromEntries(fields));
    const packing = rowsOf(device, slotsOf);
    const logits = [[-9, 1, 0.6], [-9, -1, 9], [3, 4, 0.4], [3, 4, -2], [1, 1, 1]];
    const deciding = [[-9, 0.1, 9], [-9, 0, 9], [9, 9, 0.5], [9, 9, 0.6], [9, 9, 9]];
    const gates = blank(device, [SLOTS], 7);
    const [data, gated] = await run(device, (commands) => {
      routeByScore(commands, {
        slots,
        packing,
        logits: perRow(device, logits),
        deciding: perRow(device, deciding),
        thresholds: upload(device, thresholds),
        gates,
      }, { isEntry, alpha: 0.5, function: "sigmoid" });
    }, [slots, gates]);
    const wanted: Record<number, Fields> = {};
    const wantedGates = new Array<number>(SLOTS).fill(7);
    slotsOf.forEach((slot, i) => {
      const step = isEntry ? 0 : before[i]! + 1;
      const goesOn = step < 3 && deciding[i]![step]! > thresholds[step]!;
      wanted[slot] = { step, phase: goesOn ? recurring : leaving };
      if (goesOn) wantedGates[slot] = 0.5 * sigmoid(logits[i]![step]!);
    });
    assertEquals(fieldsOf(data!), wanted);
    assertClose(gated!, wantedGates, { relative: 1e-6, label: "gates" });
    // A score that equals its threshold does not go on.
    if (!isEntry) {
      assertEquals([wanted[8]!.phase, wanted[15]!.phase, wanted[16]!.phase], [leaving, leaving, recurring]);
    }
  });
}

const gatings = {
  weighted: (x: number, z: number, w: number): number => x + w * z,
  additive: (x: number, z: number): number => x + z,
  replace: (_: number, z: number): number => z,
  delta: (x: number, z: number, w: number): number => x + w * (z - x),
} as const;

for (const [gating, join] of Object.entries(gatings)) {
  for (const base of ["none", "state", "start"] as const) {
    gpuTest(`a step's output joins ${base}, ${gating}, and nothing else`, async (device) => {
      const random = createRandom(6);
      const dim = 12;
      const slotsOf = [40, 3, 41];
      const slots = uploadFields(device, {
        40: { step: 1, depth: 2 },
        3: { step: 0, depth: 2 },
        41: { step: 0, depth: 1 },
      });
      const packing = rowsOf(device, slotsOf);
      const draw = (count: number): number[] => Array.from(random.normals(count * dim), Math.fround);
      const [before, start, out] = [draw(SLOTS), draw(SLOTS), draw(slotsOf.length)];
      const gates = Array.from({ length: SLOTS }, (_, slot) => Math.fround(0.01 * slot + 0.1));
      const states = upload(device, before, [SLOTS, dim]);
      const starts = upload(device, start, [SLOTS, dim]);
      const z = perRow(device, slotsOf.map((_, row) => out.slice(row * dim, (row + 1) * dim)));
      const [data, kept] = await run(device, (commands) => {
        const tensors = { z, packing, slots, gates: upload(device, gates), states, starts };
        recurStates(commands, tensors, { base, gating: gating as keyof typeof gatings });
      }, [states, starts]);
      const wanted = [...before];
      slotsOf.forEach((slot, row) => {
        const isLast = slot !== 3;
        for (let c = 0; c < dim; c++) {
          const value = out[row * dim + c]!;
          const x = base === "state" ? before[slot * dim + c]! : start[slot * dim + c]!;
          const joins = base === "state" || base === "start" && isLast;
          wanted[slot * dim + c] = joins ? join(x, value, gates[slot]!) : value;
        }
      });
      assertClose(data!, wanted, { relative: 1e-6, label: "states" });
      assertEquals(Array.from(kept!), start);
      const others = Array.from(data!).filter((_, i) => !slotsOf.includes(Math.floor(i / dim)));
      assertEquals(others, before.filter((_, i) => !slotsOf.includes(Math.floor(i / dim))));
    });
  }
}

for (const hasStarts of [true, false]) {
  gpuTest(`what enters is the slot's state${hasStarts ? ", and kept" : ""}`, async (device) => {
    const [dim, slotsOf] = [8, [1, 0, 60]];
    const values = slotsOf.map((_, row) => Array.from({ length: dim }, (_, c) => row * 100 + c));
    const [states, starts] = [blank(device, [SLOTS, dim], 7), blank(device, [SLOTS, dim], 7)];
    const [data, kept] = await run(device, (commands) => {
      const packing = rowsOf(device, slotsOf);
      enterStates(commands, {
        z: perRow(device, values),
        packing,
        states,
        starts: hasStarts ? starts : null,
      });
    }, [states, starts]);
    const wanted = new Array<number>(SLOTS * dim).fill(7);
    slotsOf.forEach((slot, row) => wanted.splice(slot * dim, dim, ...values[row]!));
    assertEquals(Array.from(data!), wanted);
    assertEquals(Array.from(kept!), hasStarts ? wanted : new Array<number>(SLOTS * dim).fill(7));
  });
}

gpuTest(
  "tokens are logged in order, and end their text by an end token, its length or damage",
  async (device) => {
    const NO_TOKEN = 0xffffffff;
    const draws = [
      { slot: 6, token: 20, remaining: 5, position: 11, wanted: entering },
      { slot: 1, token: 3, remaining: 5, position: 0, wanted: ended },
      { slot: 2, token: 20, remaining: 1, position: 8, wanted: ended },
      { slot: 30, token: NO_TOKEN, remaining: 5, position: 9, wanted: ended },
      { slot: 4, token: 9, remaining: 2, position: 9, wanted: ended },
    ];
    const step = 2;
    const slots = uploadFields(
      device,
      Object.fromEntries(
        draws.map(({ slot, remaining, position }) => [slot, { remaining, position, step, phase: leaving }]),
      ),
    );
    const tokens = new Uint32Array(SLOTS).fill(1);
    const logProbabilities = new Float32Array(SLOTS).fill(1);
    for (const { slot, token } of draws) [tokens[slot], logProbabilities[slot]] = [token, -slot / 2];
    const log = blankIndices(device, [20, 4]);
    const tallies = blankIndices(device, [TALLY_COUNT]);
    const parts = [draws.slice(0, 2), [], draws.slice(2)];
    const [logged, counted, data] = await run(device, (commands) => {
      for (const part of parts) {
        finishTokens(commands, {
          slots,
          packing: rowsOf(device, part.map(({ slot }) => slot)),
          tokens: uploadIndices(device, tokens),
          logProbabilities: upload(device, logProbabilities),
          ends: uploadIndices(device, [2, 3, 9]),
          log,
          tallies,
        });
      }
    }, [log, tallies, slots]);
    assertEquals(counted![TALLIES.events], draws.length);
    const floats = new Float32Array(logged!.buffer);
    draws.forEach(({ slot, token }, i) => {
      assertEquals([logged![i * 4], logged![i * 4 + 1], floats[i * 4 + 2], logged![i * 4 + 3]], [
        slot,
        token,
        -slot / 2,
        step,
      ]);
    });
    assertEquals(
      Array.from(logged!.subarray(draws.length * 4)),
      new Array<number>((20 - draws.length) * 4).fill(0),
    );
    assertEquals(
      fieldsOf(data!),
      Object.fromEntries(draws.map(({ slot, token, remaining, position, wanted: phase }) => {
        return [slot, { phase, step, position: position + 1, remaining: remaining - 1, token }];
      })),
    );
  },
);

gpuTest("no ends, and no rows, end nothing", async (device) => {
  const slots = uploadFields(device, { 3: { remaining: 2, position: 4, step: 1, phase: leaving } });
  const [log, tallies] = [blankIndices(device, [9, 4]), blankIndices(device, [TALLY_COUNT])];
  const tokens = uploadIndices(device, new Uint32Array(SLOTS));
  const record = (slotsOf: readonly number[]) => (commands: Parameters<typeof finishTokens>[0]): void => {
    const logProbabilities = blank(device, [SLOTS], 0);
    const ends = uploadIndices(device, [0]);
    finishTokens(commands, {
      slots,
      packing: rowsOf(device, slotsOf),
      tokens,
      logProbabilities,
      ends,
      log,
      tallies,
    });
  };
  const [none] = await run(device, record([]), [slots]);
  assertEquals(fieldsOf(none!), { 3: { remaining: 2, position: 4, step: 1, phase: leaving } });
  const [one] = await run(device, record([3]), [slots]);
  assertEquals(fieldsOf(one!), { 3: { remaining: 1, position: 5, step: 1, phase: entering, token: 0 } });
});
