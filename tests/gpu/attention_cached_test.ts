import { assert, assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import { GpuDevice } from "../../gpu/device.ts";
import { attentionCached, type AttentionCachedSettings } from "../../gpu/kernels/attention_cached.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import * as reference from "../reference/attention.ts";
import { assertClose } from "../support/close.ts";
import { blank, blankIndices, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { asHardware, tuned } from "../support/hardware.ts";
import { kvDtypes, roundKv, uploadKv } from "../support/kv.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { orderedPages, poolRow, shuffledPages } from "../support/pages.ts";
import { createRandom } from "../support/random.ts";
import { writtenPart } from "../support/row_cases.ts";

/** Rows that see the entries 0 to `last` of a table each, of texts with room for `entries`. */
interface CachedCase extends Pick<AttentionCachedSettings, "heads" | "kvHeads" | "headDim" | "longest"> {
  readonly entries: number;
  readonly seen: readonly (readonly [table: number, last: number])[];
  /** Rows past the count, whose count then comes from the GPU. */
  readonly spare?: number;
  /** Standard deviation of queries and keys. */
  readonly scale?: number;
  readonly kvDtype: KvDtype;
  /** Whether the pages lie in order; otherwise they are shuffled. */
  readonly isOrdered?: boolean;
}

interface Inputs {
  /** (rows, H * D). */
  readonly q: Float64Array;
  /** (tables * entries, G * D). */
  readonly k: Float64Array;
  readonly v: Float64Array;
}

const tidyHeads = { heads: 4, kvHeads: 4, headDim: 64 };
const oddHeads = { heads: 6, kvHeads: 2, headDim: 12 };
const wideHeads = { heads: 1, kvHeads: 1, headDim: 256 };

const cases: Readonly<Record<string, Omit<CachedCase, "kvDtype">>> = {
  "tidy sizes": { ...tidyHeads, entries: 64, seen: [[0, 63], [1, 63]] },
  "odd sizes": { ...oddHeads, entries: 103, seen: [[0, 36], [1, 0], [2, 61], [1, 4], [0, 102]] },
  "one row and one key": { ...oddHeads, entries: 7, seen: [[0, 0]] },
  "16 rows": { ...oddHeads, entries: 80, seen: Array.from({ length: 16 }, (_, i) => [i % 5, 5 * i]) },
  "a dynamic count": { ...oddHeads, entries: 80, seen: [[2, 70], [0, 31], [1, 5]], spare: 13 },
  "a dynamic count of zero": { ...oddHeads, entries: 8, seen: [], spare: 16 },
  "4,097 keys": { ...tidyHeads, kvHeads: 2, entries: 4100, seen: [[1, 4096]] },
  "heads of 4": { heads: 2, kvHeads: 1, headDim: 4, entries: 90, seen: [[0, 87]] },
  "heads of 256": { ...wideHeads, entries: 90, seen: [[0, 1], [1, 87]] },
  "70,000 keys": { heads: 2, kvHeads: 1, headDim: 4, entries: 70_000, seen: [[0, 69_999], [0, 9]] },
  "200,000 keys": { heads: 1, kvHeads: 1, headDim: 4, entries: 200_000, seen: [[0, 199_999]] },
  "as many keys as eight lanes reach": { ...wideHeads, entries: 12_288, seen: [[0, 12_287]] },
  "more lanes for more keys": { ...oddHeads, entries: 900, seen: [[1, 843], [0, 3]], longest: 200_000 },
  "most lanes for most keys": { ...oddHeads, entries: 900, seen: [[1, 843], [0, 3]], longest: 500_000 },
};

const devices: Readonly<Record<string, (device: GpuDevice) => GpuDevice>> = {
  "as the adapter allows": (device) => device,
  "without subgroups": ({ handle, info }) => new GpuDevice(handle, info, new Set()),
  "with hardware launch shapes": asHardware,
};

function tablesOf({ seen }: Pick<CachedCase, "seen">): number {
  return seen.reduce((most, [table]) => Math.max(most, table + 1), 1);
}

/** Keys and queries for a case. Entries that nobody sees are NaN, because nothing may come of them. */
function randomInputs(cachedCase: CachedCase): Inputs {
  const { heads, kvHeads, headDim, entries, seen, scale = 1, kvDtype } = cachedCase;
  const random = createRandom(8);
  const width = kvHeads * headDim;
  const last = Array.from(
    { length: tablesOf(cachedCase) },
    (_, table) => seen.reduce((most, row) => row[0] === table ? Math.max(most, row[1]) : most, -1),
  );
  const isSeen = (row: number): boolean => row % entries <= last[Math.floor(row / entries)]!;
  const cache = (deviation: number): Float64Array =>
    random.normals(last.length * entries * width, deviation)
      .map((value, i) => isSeen(Math.floor(i / width)) ? roundKv(value, kvDtype) : NaN);
  const q = random.normals(seen.length * heads * headDim, scale).map(Math.fround);
  return { q, k: cache(scale), v: cache(1) };
}

/** Attention by the GPU; values and keys lie the other way round between columns of something else. */
async function attend(device: GpuDevice, { q, k, v, ...cachedCase }: Inputs & CachedCase): Promise<number[]> {
  const { heads, kvHeads, headDim, entries, seen, spare, longest, kvDtype, isOrdered = false } = cachedCase;
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim];
  const rows = uploadRows(device, { count: seen.length, spare });
  const texts = { tables: k.length / kvWidth / entries, entries };
  const placed = isOrdered ? orderedPages(texts) : shuffledPages(createRandom(5), texts);
  const { pages, tableLength, poolRows } = placed;
  const kv = new Float64Array(poolRows * (2 * kvWidth + 12)).fill(NaN);
  const layout = { kOffset: kvWidth + 8, vOffset: 4 };
  for (let row = 0; row < k.length / kvWidth; row++) {
    const place = poolRow(placed, { table: Math.floor(row / entries), entry: row % entries });
    const start = place * (2 * kvWidth + 12);
    kv.set(k.subarray(row * kvWidth, (row + 1) * kvWidth), start + layout.kOffset);
    kv.set(v.subarray(row * kvWidth, (row + 1) * kvWidth), start + layout.vOffset);
  }
  const queries = new Float64Array(rows.maximum * (width + 8)).fill(NaN);
  seen.forEach((_, row) => queries.set(q.subarray(row * width, (row + 1) * width), row * (width + 8)));
  const records = new Uint32Array(rows.maximum * 4);
  seen.forEach(([table, last], row) => records.set([table * tableLength, last], row * 4 + 2));
  const out = blank(device, [rows.maximum, width]);
  const [got] = await run(device, (commands) => {
    recordRows(commands, rows);
    attentionCached(commands, {
      q: upload(device, queries, [rows.maximum, width + 8]),
      cache: {
        pool: uploadKv(device, kv, { shape: [poolRows, 2 * kvWidth + 12], dtype: kvDtype }),
        pages: uploadIndices(device, pages, [pages.length / tableLength, tableLength]),
      },
      packing: { rows, records: uploadIndices(device, records, [rows.maximum, 4]) },
      out,
    }, { heads, kvHeads, headDim, layout, ...(longest !== undefined && { longest }) });
  }, [out]);
  return writtenPart(got!, seen.length * width);
}

function attendReference(
  inputs: Inputs,
  { heads, kvHeads, headDim, entries, seen }: CachedCase,
): Float64Array {
  const spans = seen.flatMap(([table, last]) => [table * entries, table * entries + last + 1]);
  const sizes = { heads, keyValueHeads: kvHeads, headDim };
  const lasts = seen.map(([table, last]) => table * entries + last);
  return reference.attention({ ...inputs, spans, last: lasts }, sizes).out;
}

const variants = Object.entries(devices).flatMap(([variant, choose]) =>
  kvDtypes.map((kvDtype) => ({ variant: `${variant}, ${kvDtype}`, choose, kvDtype }))
);

for (const { variant, choose, kvDtype } of variants) {
  for (const [name, sizes] of Object.entries(cases)) {
    gpuTest(`attentionCached matches the reference with ${name}, ${variant}`, async (device) => {
      const cachedCase = { ...sizes, kvDtype };
      const inputs = randomInputs(cachedCase);
      const got = await attend(choose(device), { ...inputs, ...cachedCase });
      // Rounding of sums over the keys; those over thousands of both signs cancel.
      const relative = cachedCase.entries > 10_000 ? 3e-5 : 5e-6;
      assertClose(got, attendReference(inputs, cachedCase), { relative, label: "out" });
    });
  }

  gpuTest(
    `attentionCached gives a row the same bits in any company and any pages, ${variant}`,
    async (device) => {
      const shape = { ...oddHeads, entries: 200, kvDtype };
      const own = [1, 150] as const;
      const width = shape.heads * shape.headDim;
      const { k, v, q } = randomInputs({ ...shape, seen: [[0, 199], [1, 199]] });
      let alone: number[] | null = null;
      for (
        const [others, spare] of [[0, undefined], [1, undefined], [15, undefined], [0, 15], [6, 9]] as const
      ) {
        const seen = [...Array.from({ length: others }, (_, i) => [i % 2, 190 - i] as const), own];
        const queries = createRandom(others).normals(seen.length * width, 3);
        queries.set(q.subarray(0, width), others * width);
        for (const isOrdered of [false, true]) {
          const cachedCase = { ...shape, seen, isOrdered, ...(spare !== undefined && { spare }) };
          const last = (await attend(choose(device), { ...cachedCase, q: queries, k, v })).slice(-width);
          alone ??= last;
          assertEquals(last, alone, `with ${others} others and ${spare ?? 0} spare rows`);
        }
      }
    },
  );

  gpuTest(`attentionCached stays finite with large scores, ${variant}`, async (device) => {
    const cachedCase: CachedCase = {
      ...oddHeads,
      entries: 120,
      seen: [[0, 119], [1, 0], [2, 71]],
      scale: 40,
      kvDtype,
    };
    const inputs = randomInputs(cachedCase);
    const got = await attend(choose(device), { ...inputs, ...cachedCase });
    // Scores of thousands are rounded to some 1e-4, and so are the weights.
    assertClose(got, attendReference(inputs, cachedCase), { relative: 1e-3, label: "out" });
    const huge: CachedCase = { ...cachedCase, scale: kvDtype === "f16" ? 1e4 : 1e12 };
    const far = await attend(choose(device), { ...randomInputs(huge), ...huge });
    assert(far.every(Number.isFinite));
  });
}

for (const name of ["tidy sizes", "odd sizes", "one row and one key", "4,097 keys"]) {
  gpuTest(
    `attentionCached matches the reference with ${name} for a device tuned to 256 lanes`,
    async (opened) => {
      const device = tuned(opened, { attentionCached: "lanes_256" });
      const cachedCase = { ...cases[name]!, kvDtype: "f32" } as const;
      const inputs = randomInputs(cachedCase);
      const got = await attend(device, { ...inputs, ...cachedCase });
      assertClose(got, attendReference(inputs, cachedCase), { relative: 5e-6, label: "out" });
    },
  );
}

gpuTest("attentionCached refuses heads and keys that do not fit", (device) => {
  const settings = { heads: 4, kvHeads: 2, headDim: 8, layout: { kOffset: 0, vOffset: 16 } };
  const rows = uploadRows(device, { count: 3 });
  const packing = { rows, records: uploadIndices(device, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [3, 4]) };
  const tensors = {
    q: blank(device, [3, 32]),
    cache: { pool: blank(device, [16, 32]), pages: blankIndices(device, [1, 1]) },
    packing,
    out: blank(device, [3, 32]),
  };
  const record = (changed: Partial<AttentionCachedSettings>): void => {
    attentionCached(new Commands(device, "test"), tensors, { ...settings, ...changed });
  };
  record({});
  assertThrows(() => record({ headDim: 6 }), RangeError, "headDim is 6, not a multiple of 4");
  assertThrows(() => record({ kvHeads: 3 }), RangeError, "4 heads cannot share 3");
  assertThrows(
    () => record({ layout: { kOffset: 0, vOffset: 20 } }),
    TypeError,
    "expected at least 32 and 36",
  );
  assertThrows(() => record({ headDim: 4 }), TypeError, "out has shape (3,32), expected (3,16)");
  assertThrows(() => record({ longest: 1e7 }), RangeError, "rows that see 10000000 keys, at most");
  return Promise.resolve();
});
