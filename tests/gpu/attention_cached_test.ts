import { assert, assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import { GpuDevice } from "../../gpu/device.ts";
import { attentionCached, type AttentionCachedSettings } from "../../gpu/kernels/attention_cached.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import * as reference from "../reference/attention.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { kvDtypes, roundKv, uploadKv } from "../support/kv.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { writtenPart } from "../support/row_cases.ts";

/** Rows that see the keys from `first` to `last` each, of a cache of `cacheRows`. */
interface CachedCase extends Pick<AttentionCachedSettings, "heads" | "kvHeads" | "headDim" | "longest"> {
  readonly cacheRows: number;
  readonly seen: readonly (readonly [first: number, last: number])[];
  /** Rows past the count, whose count then comes from the GPU. */
  readonly spare?: number;
  /** Standard deviation of queries and keys. */
  readonly scale?: number;
  readonly kvDtype: KvDtype;
}

interface Inputs {
  /** (rows, H * D). */
  readonly q: Float64Array;
  /** (cache rows, G * D). */
  readonly k: Float64Array;
  readonly v: Float64Array;
}

const tidyHeads = { heads: 4, kvHeads: 4, headDim: 64 };
const oddHeads = { heads: 6, kvHeads: 2, headDim: 12 };
const wideHeads = { heads: 1, kvHeads: 1, headDim: 256 };

const cases: Readonly<Record<string, Omit<CachedCase, "kvDtype">>> = {
  "tidy sizes": { ...tidyHeads, cacheRows: 128, seen: [[0, 63], [64, 127]] },
  "odd sizes": { ...oddHeads, cacheRows: 103, seen: [[0, 36], [37, 37], [40, 101], [5, 9], [0, 102]] },
  "one row and one key": { ...oddHeads, cacheRows: 7, seen: [[3, 3]] },
  "16 rows": { ...oddHeads, cacheRows: 80, seen: Array.from({ length: 16 }, (_, i) => [i, 5 * i]) },
  "a dynamic count": { ...oddHeads, cacheRows: 80, seen: [[0, 70], [9, 40], [3, 8]], spare: 13 },
  "a dynamic count of zero": { ...oddHeads, cacheRows: 8, seen: [], spare: 16 },
  "4,097 keys": { ...tidyHeads, kvHeads: 2, cacheRows: 4100, seen: [[2, 4098]] },
  "heads of 4": { heads: 2, kvHeads: 1, headDim: 4, cacheRows: 90, seen: [[1, 88]] },
  "heads of 256": { ...wideHeads, cacheRows: 90, seen: [[0, 1], [1, 88]] },
  "70,000 keys": {
    heads: 2,
    kvHeads: 1,
    headDim: 4,
    cacheRows: 70_000,
    seen: [[0, 69_999], [69_990, 69_999]],
  },
  "200,000 keys": { heads: 1, kvHeads: 1, headDim: 4, cacheRows: 200_000, seen: [[0, 199_999]] },
  "as many keys as eight lanes reach": { ...wideHeads, cacheRows: 12_288, seen: [[0, 12_287]] },
  "more lanes for more keys": { ...oddHeads, cacheRows: 900, seen: [[7, 850], [3, 3]], longest: 200_000 },
  "most lanes for most keys": { ...oddHeads, cacheRows: 900, seen: [[7, 850], [3, 3]], longest: 500_000 },
};

const devices: Readonly<Record<string, (device: GpuDevice) => GpuDevice>> = {
  "as the adapter allows": (device) => device,
  "without subgroups": ({ handle, info }) => new GpuDevice(handle, info, new Set()),
  "with hardware launch shapes": asHardware,
};

/** Keys and queries for a case. Rows of the cache that nobody sees are NaN, because nothing may come of them. */
function randomInputs(
  { heads, kvHeads, headDim, cacheRows, seen, scale = 1, kvDtype }: CachedCase,
): Inputs {
  const random = createRandom(8);
  const width = kvHeads * headDim;
  const isSeen = (row: number): boolean => seen.some(([first, last]) => row >= first && row <= last);
  const cache = (deviation: number): Float64Array =>
    random.normals(cacheRows * width, deviation)
      .map((value, i) => isSeen(Math.floor(i / width)) ? roundKv(value, kvDtype) : NaN);
  const q = random.normals(seen.length * heads * headDim, scale).map(Math.fround);
  return { q, k: cache(scale), v: cache(1) };
}

/** Attention by the GPU; values and keys lie the other way round between columns of something else. */
async function attend(
  device: GpuDevice,
  { q, k, v, heads, kvHeads, headDim, cacheRows, seen, spare, longest, kvDtype }: Inputs & CachedCase,
): Promise<number[]> {
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim];
  const rows = uploadRows(device, { count: seen.length, spare });
  const kv = new Float64Array(cacheRows * (2 * kvWidth + 12)).fill(NaN);
  const layout = { kOffset: kvWidth + 8, vOffset: 4 };
  for (let row = 0; row < cacheRows; row++) {
    const start = row * (2 * kvWidth + 12);
    kv.set(k.subarray(row * kvWidth, (row + 1) * kvWidth), start + layout.kOffset);
    kv.set(v.subarray(row * kvWidth, (row + 1) * kvWidth), start + layout.vOffset);
  }
  const queries = new Float64Array(rows.maximum * (width + 8)).fill(NaN);
  seen.forEach((_, row) => queries.set(q.subarray(row * width, (row + 1) * width), row * (width + 8)));
  const records = new Uint32Array(rows.maximum * 4);
  seen.forEach((range, row) => records.set(range, row * 4 + 2));
  const out = blank(device, [rows.maximum, width]);
  const [got] = await run(device, (commands) => {
    recordRows(commands, rows);
    attentionCached(commands, {
      q: upload(device, queries, [rows.maximum, width + 8]),
      kv: uploadKv(device, kv, { shape: [cacheRows, 2 * kvWidth + 12], dtype: kvDtype }),
      packing: { rows, records: uploadIndices(device, records, [rows.maximum, 4]) },
      out,
    }, { heads, kvHeads, headDim, layout, ...(longest !== undefined && { longest }) });
  }, [out]);
  return writtenPart(got!, seen.length * width);
}

function attendReference(inputs: Inputs, { heads, kvHeads, headDim, seen }: CachedCase): Float64Array {
  const spans = seen.flatMap(([first, last]) => [first, last + 1]);
  const sizes = { heads, keyValueHeads: kvHeads, headDim };
  return reference.attention({ ...inputs, spans, last: seen.map(([, last]) => last) }, sizes).out;
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
      const relative = cachedCase.cacheRows > 10_000 ? 3e-5 : 5e-6;
      assertClose(got, attendReference(inputs, cachedCase), { relative, label: "out" });
    });
  }

  gpuTest(`attentionCached gives a row the same bits in any company, ${variant}`, async (device) => {
    const shape = { ...oddHeads, cacheRows: 200, kvDtype };
    const own = [20, 150] as const;
    const width = shape.heads * shape.headDim;
    const { k, v, q } = randomInputs({ ...shape, seen: [[0, 199]] });
    let alone: number[] | null = null;
    for (
      const [others, spare] of [[0, undefined], [1, undefined], [15, undefined], [0, 15], [6, 9]] as const
    ) {
      const seen = [...Array.from({ length: others }, (_, i) => [i, 190 - i] as const), own];
      const queries = createRandom(others).normals(seen.length * width, 3);
      queries.set(q, others * width);
      const cachedCase = { ...shape, seen, ...(spare !== undefined && { spare }) };
      const last = (await attend(choose(device), { ...cachedCase, q: queries, k, v })).slice(-width);
      alone ??= last;
      assertEquals(last, alone, `with ${others} others and ${spare ?? 0} spare rows`);
    }
  });

  gpuTest(`attentionCached stays finite with large scores, ${variant}`, async (device) => {
    const cachedCase: CachedCase = {
      ...oddHeads,
      cacheRows: 120,
      seen: [[0, 119], [4, 4], [9, 80]],
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

gpuTest("attentionCached refuses heads and keys that do not fit", (device) => {
  const settings = { heads: 4, kvHeads: 2, headDim: 8, layout: { kOffset: 0, vOffset: 16 } };
  const rows = uploadRows(device, { count: 3 });
  const packing = { rows, records: uploadIndices(device, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], [3, 4]) };
  const tensors = {
    q: blank(device, [3, 32]),
    kv: blank(device, [9, 32]),
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
