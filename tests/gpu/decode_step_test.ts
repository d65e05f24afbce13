import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import { advance, nextRows } from "../../gpu/kernels/decode_step.ts";
import { fixedPacking } from "../../gpu/packing.ts";
import { planAllocator } from "../../gpu/memory.ts";
import { createTensor, type Tensor } from "../../gpu/tensor.ts";
import { blankIndices, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";

/** Rows for the texts in `slots`, of `count` texts in all. */
interface Case {
  readonly count: number;
  readonly slots: readonly number[];
  /** Rows past the count, whose count then comes from the GPU. */
  readonly spare?: number;
}

const cases: Record<string, Case> = {
  "all texts": { count: 64, slots: Array.from({ length: 64 }, (_, i) => i) },
  "some texts in any order": { count: 9, slots: [7, 0, 3, 8, 2] },
  "one text": { count: 1, slots: [0] },
  "fewer texts than there is room for": { count: 40, slots: [39, 4, 11], spare: 90 },
  "no texts": { count: 5, slots: [], spare: 90 },
  "70,000 texts": { count: 70_000, slots: Array.from({ length: 70_000 }, (_, i) => 69_999 - i) },
};

/** What a slot's text goes on with. */
function textsOf(count: number): { tokens: number[]; positions: number[]; logProbabilities: number[] } {
  const random = createRandom(count);
  return {
    tokens: Array.from({ length: count }, () => random.integer(50_000)),
    positions: Array.from({ length: count }, () => random.integer(2000)),
    logProbabilities: Array.from({ length: count }, () => Math.fround(-random.uniform())),
  };
}

/** The slots of a case's rows; those of spare rows are 0. */
function padded(slots: readonly number[], maximum: number): Uint32Array {
  const all = new Uint32Array(maximum);
  all.set(slots);
  return all;
}

for (const [name, { count, slots, spare }] of Object.entries(cases)) {
  gpuTest(`nextRows makes a row of each text's next token with ${name}`, async (device) => {
    const rows = uploadRows(device, { count: slots.length, spare });
    const { tokens, positions } = textsOf(count);
    const mark = new Uint32Array(rows.maximum * 4).fill(77);
    const ids = uploadIndices(device, mark.subarray(0, rows.maximum));
    const records = uploadIndices(device, mark, [rows.maximum, 4]);
    const [gotIds, gotRecords] = await run(device, (commands) => {
      recordRows(commands, rows);
      nextRows(commands, {
        slots: uploadIndices(device, padded(slots, rows.maximum)),
        tokens: uploadIndices(device, tokens),
        positions: uploadIndices(device, positions),
        ids,
        packing: { rows, records },
      });
    }, [ids, records]);
    const wantedIds = mark.slice(0, rows.maximum);
    wantedIds.set(slots.map((slot) => tokens[slot]!));
    assertEquals(gotIds, wantedIds);
    mark.set(slots.flatMap((slot, row) => [row, positions[slot]!, row, row + 1]));
    assertEquals(gotRecords, mark);
  });

  gpuTest(`advance writes a record for each text and moves it on, with ${name}`, async (device) => {
    const steps = 4;
    const rows = uploadRows(device, { count: slots.length, spare });
    const { tokens, positions, logProbabilities } = textsOf(count);
    const depths = Array.from({ length: rows.maximum }, (_, row) => row % 4);
    const mark = new Uint32Array(steps * count * 4).fill(77);
    const tensors = {
      slots: uploadIndices(device, padded(slots, rows.maximum)),
      tokens: uploadIndices(device, tokens),
      logProbabilities: upload(device, logProbabilities),
      depths: uploadIndices(device, depths),
      positions: uploadIndices(device, positions),
      history: uploadIndices(device, mark, [steps, count, 4]),
      cursor: uploadIndices(device, [1]),
      packing: { rows, records: blankIndices(device, [rows.maximum, 4]) },
    };
    const got = await run(device, (commands) => {
      recordRows(commands, rows);
      advance(commands, tensors);
      advance(commands, tensors);
    }, [tensors.history, tensors.positions, tensors.cursor]);
    const bits = new Uint32Array(Float32Array.from(logProbabilities).buffer);
    const moved = positions.slice();
    for (const step of [1, 2]) {
      slots.forEach((slot, row) => {
        const record = [tokens[slot]!, bits[slot]!, depths[row]!, moved[slot]!++];
        mark.set(record, (step * count + slot) * 4);
      });
    }
    assertEquals(got, [mark, Uint32Array.from(moved), Uint32Array.of(3)]);
  });
}

gpuTest("advance after a prompt takes the last row's depth, and moves its text on once", async (device) => {
  for (const [used, spare] of [[5, undefined], [1, undefined], [3, 70], [70_000, undefined]] as const) {
    const rows = uploadRows(device, { count: used, spare });
    const depths = new Uint32Array(rows.maximum).fill(9);
    depths[used - 1] = 2;
    const tensors = {
      slots: uploadIndices(device, new Uint32Array(rows.maximum).fill(1)),
      tokens: uploadIndices(device, [10, 11, 12]),
      logProbabilities: upload(device, [0, -0.5, 0]),
      depths: uploadIndices(device, depths),
      positions: uploadIndices(device, [4, used - 1, 6]),
      history: blankIndices(device, [2, 3, 4]),
      cursor: blankIndices(device, [1]),
      packing: { rows, records: blankIndices(device, [rows.maximum, 4]) },
    };
    const got = await run(device, (commands) => {
      recordRows(commands, rows);
      advance(commands, tensors, { lastRow: true });
    }, [tensors.history, tensors.positions, tensors.cursor]);
    const history = new Uint32Array(2 * 3 * 4);
    // -0.5 is 0xbf000000.
    history.set([11, 0xbf000000, 2, used - 1], 4);
    assertEquals(got, [history, Uint32Array.of(4, used, 6), Uint32Array.of(1)]);
  }
});

gpuTest("nextRows and advance refuse what does not fit", (device) => {
  const commands = new Commands(device, "test");
  const plan = planAllocator();
  const texts = (count: number): Tensor =>
    createTensor(plan, { shape: [count], dtype: "u32", label: "texts" });
  const packing = fixedPacking(plan, { count: 3 });
  const rows = { slots: texts(3), tokens: texts(4), positions: texts(4) };
  assertThrows(
    () => nextRows(commands, { ...rows, ids: texts(2), packing }),
    TypeError,
    "Cannot record nextRows: ids has shape (2), expected (3)",
  );
  const texted = { ...rows, logProbabilities: texts(4), depths: texts(3), cursor: texts(1) };
  const history = createTensor(plan, { shape: [2, 4, 3], dtype: "u32", label: "history" });
  assertThrows(
    () => advance(commands, { ...texted, history, packing }),
    TypeError,
    "Cannot record advance: history has shape (2,4,3), expected (1,4,4)",
  );
  const many = 5_000_000;
  assertThrows(
    () =>
      advance(commands, {
        ...texted,
        slots: texts(many),
        depths: texts(many),
        history: createTensor(plan, { shape: [2, 4, 4], dtype: "u32", label: "history" }),
        packing: fixedPacking(plan, { count: many }),
      }),
    RangeError,
    "Cannot advance 5000000 texts at once",
  );
  return Promise.resolve();
});
