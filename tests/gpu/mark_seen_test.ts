import { assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { markSeen, NO_TOKEN, seenWords } from "../../gpu/kernels/sample.ts";
import { gpuTest, run, uploadIndices } from "../support/device.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { bitsOf } from "../support/sample_batch.ts";

interface Case {
  readonly count: number;
  readonly spare?: number;
  readonly vocabSize: number;
  readonly capacity: number;
}

const cases: Record<string, Case> = {
  "of one text": { count: 100, vocabSize: 512, capacity: 1 },
  "of many texts": { count: 500, vocabSize: 77, capacity: 9 },
  "of one token": { count: 1, vocabSize: 1, capacity: 3 },
  "of fewer tokens than there is room for": { count: 5, spare: 90, vocabSize: 40, capacity: 2 },
  "of no tokens": { count: 0, spare: 90, vocabSize: 40, capacity: 2 },
  "of 70,000 tokens": { count: 70_000, vocabSize: 49_152, capacity: 3 },
};

async function checkCase(device: GpuDevice, { count, spare, vocabSize, capacity }: Case): Promise<void> {
  const random = createRandom(count);
  const rows = uploadRows(device, { count, spare });
  const ids = Array.from({ length: rows.maximum }, () => random.integer(vocabSize));
  const slots = ids.map(() => random.integer(capacity));
  const before = Array.from({ length: capacity }, () => new Set([random.integer(vocabSize)]));
  const seen = uploadIndices(device, bitsOf(before, vocabSize), [capacity, seenWords(vocabSize)]);
  const [after] = await run(device, (commands) => {
    recordRows(commands, rows);
    const tensors = { ids: uploadIndices(device, ids), slots: uploadIndices(device, slots), seen };
    markSeen(commands, tensors, { rows });
  }, [seen]);
  const wanted = before.map((set, slot) =>
    new Set([...set, ...ids.slice(0, count).filter((_, row) => slots[row] === slot)])
  );
  assertEquals(after, bitsOf(wanted, vocabSize));
}

for (const [name, settings] of Object.entries(cases)) {
  gpuTest(`markSeen adds the tokens ${name}`, (device) => checkCase(device, settings));
}

gpuTest("markSeen passes over what is no token", async (device) => {
  const seen = uploadIndices(device, [0, 0, 0, 0], [2, 2]);
  const [after] = await run(device, (commands) => {
    const tensors = {
      ids: uploadIndices(device, [64, NO_TOKEN, 33]),
      slots: uploadIndices(device, [0, 0, 1]),
      seen,
    };
    markSeen(commands, tensors, { rows: uploadRows(device, { count: 3 }) });
  }, [seen]);
  assertEquals(after, Uint32Array.of(0, 0, 0, 2));
});
