import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { cacheAppend } from "../../gpu/kernels/cache_append.ts";
import { blank, blankIndices, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";

/** Rows of queries, keys and values whose last `width` columns go to the cache rows `places`. */
interface Case {
  readonly width: number;
  /** Columns before keys and values, and after them. */
  readonly before: number;
  readonly after?: number;
  readonly cacheRows: number;
  readonly places: readonly number[];
  /** Rows past the count, whose count then comes from the GPU. */
  readonly spare?: number;
}

const cases: Record<string, Case> = {
  "tidy sizes": {
    width: 64,
    before: 128,
    cacheRows: 64,
    places: Array.from({ length: 32 }, (_, i) => 16 + i),
  },
  "odd sizes": {
    width: 20,
    before: 12,
    after: 4,
    cacheRows: 41,
    places: Array.from({ length: 37 }, (_, i) => i + 3),
  },
  "one row": { width: 4, before: 4, cacheRows: 1, places: [0] },
  "no columns before": { width: 8, before: 0, cacheRows: 5, places: [4, 2] },
  "places of several slots": { width: 12, before: 8, cacheRows: 60, places: [7, 8, 9, 40, 21, 22, 59] },
  "a dynamic count": { width: 12, before: 8, cacheRows: 30, places: [3, 4, 19, 20], spare: 25 },
  "a dynamic count of zero": { width: 12, before: 8, cacheRows: 30, places: [], spare: 25 },
  "70,000 rows": {
    width: 8,
    before: 4,
    cacheRows: 70_001,
    places: Array.from({ length: 70_000 }, (_, i) => 70_000 - i),
  },
};

async function checkCase(
  device: GpuDevice,
  { width, before, after = 0, cacheRows, places, spare }: Case,
): Promise<void> {
  const stride = before + width + after;
  const rows = uploadRows(device, { count: places.length, spare });
  const qkv = Float32Array.from(createRandom(11).normals(rows.maximum * stride));
  const held = Float32Array.from(createRandom(12).normals(cacheRows * width));
  // Only the last entry of a record says where the row goes; spare records would go to row 0.
  const records = new Uint32Array(rows.maximum * 4);
  places.forEach((place, row) => records.set([9, 9, 9, place], row * 4));
  const slot = upload(device, held, [cacheRows, width]);
  const [got] = await run(device, (commands) => {
    recordRows(commands, rows);
    cacheAppend(commands, {
      qkv: upload(device, qkv, [rows.maximum, stride]),
      places: { rows, records: uploadIndices(device, records, [rows.maximum, 4]) },
      slot,
    }, { firstColumn: before });
  }, [slot]);
  const wanted = held.slice();
  places.forEach((place, row) => {
    wanted.set(qkv.subarray(row * stride + before, row * stride + before + width), place * width);
  });
  assertEquals(got!.length, wanted.length);
  assertEquals(wanted.findIndex((value, i) => value !== got![i]), -1, "first wrong element");
}

for (const [name, settings] of Object.entries(cases)) {
  gpuTest(`cacheAppend puts keys and values in their places, and nothing else, with ${name}`, (device) => {
    return checkCase(device, settings);
  });
}

gpuTest("cacheAppend refuses columns past a row's end, or not in fours", (device) => {
  const places = { rows: uploadRows(device, { count: 3 }), records: blankIndices(device, [3, 4]) };
  function record(firstColumn: number, { stride = 24, width = 16 } = {}): void {
    const tensors = { qkv: blank(device, [3, stride]), places, slot: blank(device, [9, width]) };
    cacheAppend(new Commands(device, "test"), tensors, { firstColumn });
  }
  record(8);
  assertThrows(() => record(12), TypeError, "columns 12 to 28 of 24");
  assertThrows(() => record(2), TypeError, "columns 2 to 18 of 24, expected multiples of 4");
  assertThrows(() => record(0, { width: 14 }), TypeError, "columns 0 to 14 of 24");
  assertThrows(() => record(8, { stride: 26 }), TypeError, "columns 8 to 24 of 26");
  return Promise.resolve();
});
