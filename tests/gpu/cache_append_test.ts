import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import { cacheAppend, NO_TABLE } from "../../gpu/kernels/cache_append.ts";
import { PAGE_ROWS } from "../../gpu/kernels/cache_pages.ts";
import { ropeTable } from "../../gpu/kernels/rope.ts";
import { rope } from "../reference/rope.ts";
import { assertClose } from "../support/close.ts";
import { blank, blankIndices, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { kvDtypes, kvNumbers, roundKv, uploadKv } from "../support/kv.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { poolRow, shuffledPages } from "../support/pages.ts";
import { createRandom } from "../support/random.ts";

/** Rows whose keys and values go to the entries `places` of a table; null for a row that leaves none. */
interface Case {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly entries: number;
  readonly places: readonly (number | null)[];
  /** Rows past the count, whose count then comes from the GPU. */
  readonly spare?: number;
}

const small = { heads: 2, kvHeads: 1, headDim: 4 };
const cases: Record<string, Case> = {
  "tidy sizes": {
    heads: 4,
    kvHeads: 4,
    headDim: 64,
    entries: 64,
    places: Array.from({ length: 32 }, (_, i) => 16 + i),
  },
  "odd sizes": {
    heads: 6,
    kvHeads: 2,
    headDim: 12,
    entries: 41,
    places: Array.from({ length: 37 }, (_, i) => i + 3),
  },
  "one row": { ...small, entries: 1, places: [0] },
  "places of several slots": { ...small, entries: 60, places: [7, 8, 9, 40, 21, 22, 59] },
  "rows without a table": { ...small, entries: 60, places: [7, null, 9, null, 59] },
  "no row with a table": { ...small, entries: 20, places: [null] },
  "a dynamic count": { ...small, entries: 30, places: [3, 4, 19, 20], spare: 25 },
  "a dynamic count of zero": { ...small, entries: 30, places: [], spare: 25 },
  "70,000 rows": {
    ...small,
    entries: 70_001,
    places: Array.from({ length: 70_000 }, (_, i) => 70_000 - i),
  },
};

const theta = 100;
const positions = 50;

/** Columns start to start + width - 1 of rows of `stride`. */
function part(
  rows: ArrayLike<number>,
  { stride, start, width }: Record<"stride" | "start" | "width", number>,
): Float64Array {
  return Float64Array.from(
    { length: rows.length / stride * width },
    (_, i) => rows[Math.floor(i / width) * stride + start + i % width]!,
  );
}

async function checkCase(
  device: GpuDevice,
  { heads, kvHeads, headDim, entries: room, places, spare, kvDtype }: Case & { kvDtype: KvDtype },
): Promise<void> {
  const [queries, keys] = [heads * headDim, kvHeads * headDim];
  const stride = queries + 2 * keys;
  const rows = uploadRows(device, { count: places.length, spare });
  const qkv = createRandom(11).normals(rows.maximum * stride).map(Math.fround);
  const [tables, table] = [3, 1];
  const placed = shuffledPages(createRandom(13), { tables, entries: room });
  const { pages, tableLength, poolRows } = placed;
  const held = createRandom(12).normals(poolRows * 2 * keys).map((value) => roundKv(value, kvDtype));
  const positionOf = (row: number): number => (row * 7) % positions;
  // Spare records would go to row 0.
  const records = new Uint32Array(rows.maximum * 4);
  places.forEach((place, row) => {
    const own = place === null ? [NO_TABLE, 3] : [table * tableLength, place];
    records.set([9, positionOf(row), ...own], row * 4);
  });
  const tensors = {
    qkv: upload(device, qkv, [rows.maximum, stride]),
    places: { rows, records: uploadIndices(device, records, [rows.maximum, 4]) },
    cache: {
      pool: uploadKv(device, held, { shape: [poolRows, 2 * keys], dtype: kvDtype }),
      pages: uploadIndices(device, pages, [tables, tableLength]),
    },
    table: ropeTable(device, { positions, headDim, theta }),
  };
  const [gotQkv, pool] = await run(device, (commands) => {
    recordRows(commands, rows);
    cacheAppend(commands, tensors, { heads, kvHeads, headDim });
  }, [tensors.qkv, tensors.cache.pool]);
  const gotPool = kvNumbers(pool!, kvDtype);

  const used = qkv.subarray(0, places.length * stride);
  const where = { positions: Int32Array.from(places, (_, row) => positionOf(row)) };
  const turned = (start: number, count: number): Float64Array =>
    rope({ x: part(used, { stride, start, width: count * headDim }), ...where }, {
      headDim,
      theta,
      heads: count,
    });
  const wanted = { q: turned(0, heads), k: turned(queries, kvHeads) };
  const v = part(used, { stride, start: queries + keys, width: keys });
  const relative = 2e-6;
  assertClose(part(gotQkv!.subarray(0, used.length), { stride, start: 0, width: queries }), wanted.q, {
    relative,
    label: "queries",
  });
  assertEquals(
    Array.from(gotQkv!.subarray(used.length)),
    Array.from(qkv.subarray(used.length)),
    "spare rows",
  );
  const row = (data: ArrayLike<number>, index: number, width: number): number[] =>
    Array.from({ length: width }, (_, i) => data[index * width + i]!);
  const written = places.flatMap((place, r) =>
    place === null ? [] : [{ r, place: poolRow(placed, { table, entry: place }) }]
  );
  const found = written.flatMap(({ place }) => row(gotPool, place, 2 * keys));
  const entries = written.flatMap(({ r }) => [...row(wanted.k, r, keys), ...row(v, r, keys)]);
  if (kvDtype === "f32") assertClose(found, entries, { relative, label: "entries" });
  else assertHalves(found, entries);
  const isWritten = new Set(written.map(({ place }) => place));
  for (let place = 0; place < poolRows; place++) {
    if (isWritten.has(place)) continue;
    assertEquals(row(gotPool, place, 2 * keys), row(held, place, 2 * keys), `pool row ${place}`);
  }
}

/** Checks every number against its own size: one step of f16 at most, as adapters round to nearest or towards zero. */
function assertHalves(found: readonly number[], wanted: readonly number[]): void {
  const far = wanted.findIndex((value, i) => {
    const step = Math.max(2 ** -24, 2 ** -10 * Math.abs(value));
    return !(Math.abs(found[i]! - value) <= step && Math.f16round(found[i]!) === found[i]);
  });
  assertEquals(far, -1, `entry ${far}: met ${found[far]}, expected ${wanted[far]} in f16`);
}

for (const [name, settings] of Object.entries(cases)) {
  for (const kvDtype of kvDtypes) {
    gpuTest(
      `cacheAppend turns queries and keys and fills just its places, with ${name}, ${kvDtype}`,
      (device) => checkCase(device, { ...settings, kvDtype }),
    );
  }
}

gpuTest(
  "cacheAppend keeps f16 numbers as they are, and makes NaN of what f16 cannot hold",
  async (device) => {
    const pairs: readonly (readonly [number, number])[] = [
      [0, -1],
      [65504, -65504],
      [2 ** -14, 1 + 2 ** -10],
      [65504.01, 1],
      [1, -65520],
      [1e30, -1e30],
      [Infinity, 0],
      [0, -Infinity],
      [NaN, 0],
    ];
    const halfRow = (row: number): number[] => [pairs[row]![0], pairs[row]![1], 3, 4];
    const rows = uploadRows(device, { count: pairs.length });
    const qkv = pairs.flatMap((_, row) => [...[1, 1, 1, 1], ...[2, 2, 2, 2], ...halfRow(row)]);
    const places = pairs.flatMap((_, row) => [0, 0, 0, row]);
    const pool = uploadKv(device, new Float64Array(PAGE_ROWS * 8), { shape: [PAGE_ROWS, 8], dtype: "f16" });
    const [data] = await run(device, (commands) => {
      const tensors = {
        qkv: upload(device, qkv, [pairs.length, 12]),
        places: { rows, records: uploadIndices(device, places, [pairs.length, 4]) },
        cache: { pool, pages: blankIndices(device, [1, 1]) },
        table: ropeTable(device, { positions: 1, headDim: 4, theta }),
      };
      cacheAppend(commands, tensors, { heads: 1, kvHeads: 1, headDim: 4 });
    }, [pool]);
    const found = kvNumbers(data!, "f16");
    for (const [row, pair] of pairs.entries()) {
      const [first, second, ...others] = found.subarray(row * 8 + 4, row * 8 + 8);
      assertEquals(others, [3, 4]);
      // The two numbers of a word share their fate.
      if (row < 3) assertEquals([first, second], [...pair]);
      else assertEquals([first, second], [NaN, NaN], `${pair}`);
    }
  },
);

gpuTest("cacheAppend refuses shapes that do not fit", (device) => {
  const places = { rows: uploadRows(device, { count: 3 }), records: blankIndices(device, [3, 4]) };
  function record({ stride = 16, width = 8, headDim = 4 } = {}): void {
    const tensors = {
      qkv: blank(device, [3, stride]),
      places,
      cache: { pool: blank(device, [PAGE_ROWS, width]), pages: blankIndices(device, [1, 1]) },
      table: blank(device, [5, headDim / 2, 2]),
    };
    cacheAppend(new Commands(device, "test"), tensors, { heads: 2, kvHeads: 1, headDim });
  }
  record();
  assertThrows(() => record({ stride: 20 }), TypeError, "qkv has shape (3,20), expected (3,16)");
  assertThrows(() => record({ width: 12 }), TypeError, `pool has shape (${PAGE_ROWS},12)`);
  assertThrows(() => record({ stride: 24, width: 12, headDim: 6 }), TypeError, "heads of 6 entries");
  return Promise.resolve();
});
