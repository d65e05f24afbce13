import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { attention } from "../../gpu/kernels/attention.ts";
import { attentionCached } from "../../gpu/kernels/attention_cached.ts";
import { cacheAppend } from "../../gpu/kernels/cache_append.ts";
import { pagesFor } from "../../gpu/kernels/cache_pages.ts";
import { cachePlaces } from "../../gpu/kernels/cache_places.ts";
import { planAllocator } from "../../gpu/memory.ts";
import { fixedPacking, type Packing } from "../../gpu/packing.ts";
import { createTensor } from "../../gpu/tensor.ts";
import * as reference from "../reference/attention.ts";
import { assertClose } from "../support/close.ts";
import { blank, blankIndices, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { kvDtypes, roundKv, uploadKv } from "../support/kv.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { shuffledPages } from "../support/pages.ts";
import { createRandom } from "../support/random.ts";

/** New tokens of one text, and which of them are active. */
interface NewTokens {
  readonly slot: number;
  /** Position of the first. */
  readonly start: number;
  readonly tokens: number;
  /** Ascending. */
  readonly active: readonly number[];
}

/** The passes of a case, one after the other, over a cache of some slots. */
interface Case {
  readonly slots: number;
  readonly capacity: number;
  readonly passes: readonly (readonly NewTokens[])[];
  /** Rows past the count, whose count then comes from the GPU. */
  readonly spare?: number;
}

function upTo(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** A text's first tokens, all active, then as many again, every second one active. */
function twoPasses(slot: number, tokens: number): [NewTokens, NewTokens] {
  return [
    { slot, start: 0, tokens, active: upTo(tokens) },
    { slot, start: tokens, tokens, active: upTo(tokens).filter((i) => i % 2 === 1) },
  ];
}

const [evenFirst, evenSecond] = twoPasses(0, 32);
const [manyFirst, manySecond] = twoPasses(1, 70_000);

const cases: Record<string, Case> = {
  "tidy sizes": { slots: 1, capacity: 64, passes: [[evenFirst], [evenSecond]] },
  "texts in any slots": {
    slots: 5,
    capacity: 37,
    passes: [
      [
        { slot: 3, start: 0, tokens: 7, active: [0, 1, 3, 6] },
        { slot: 0, start: 5, tokens: 2, active: [] },
        { slot: 4, start: 9, tokens: 12, active: [2, 3, 4, 5, 7, 8, 9, 10, 11] },
      ],
      [
        { slot: 4, start: 21, tokens: 1, active: [0] },
        { slot: 1, start: 0, tokens: 3, active: [1] },
        { slot: 3, start: 7, tokens: 4, active: [1, 2] },
      ],
    ],
  },
  "one token": { slots: 2, capacity: 3, passes: [[{ slot: 1, start: 2, tokens: 1, active: [0] }]] },
  "one token of each text": {
    slots: 9,
    capacity: 20,
    passes: [
      upTo(9).map((slot) => ({ slot: 8 - slot, start: 2 * slot, tokens: 1, active: [0] })),
      upTo(9).map((slot) => ({ slot, start: 17 - slot, tokens: 1, active: slot % 3 === 0 ? [] : [0] })),
    ],
  },
  "fewer rows than there is room for": {
    slots: 2,
    capacity: 30,
    passes: [
      [{ slot: 1, start: 0, tokens: 6, active: [0, 5] }, { slot: 0, start: 0, tokens: 3, active: [1] }],
      [{ slot: 1, start: 6, tokens: 1, active: [0] }],
    ],
    spare: 80,
  },
  "no rows": { slots: 2, capacity: 4, passes: [[{ slot: 1, start: 0, tokens: 3, active: [] }]], spare: 80 },
  "70,000 rows": { slots: 2, capacity: 140_000, passes: [[manyFirst], [manySecond]] },
};

/** The packed rows of a pass and the slots of its state rows. */
function uploadPass(
  device: GpuDevice,
  { texts, spare }: { texts: readonly NewTokens[]; spare: number | undefined },
): { packing: Packing; slots: number[]; records: number[][] } {
  let [state, packed] = [0, 0];
  const records = texts.flatMap(({ start, tokens, active }) => {
    const [firstState, first, end] = [state, packed, packed + active.length];
    [state, packed] = [state + tokens, end];
    return active.map((i) => [firstState + i, start + i, first, end]);
  });
  const rows = uploadRows(device, { count: records.length, spare });
  const data = new Uint32Array(rows.maximum * 4);
  data.set(records.flat());
  return {
    packing: { rows, records: uploadIndices(device, data, [rows.maximum, 4]) },
    slots: texts.flatMap(({ slot, tokens }) => upTo(tokens).map(() => slot)),
    records,
  };
}

/** Entry of a cache row that a pass must not have written. */
const MARK = 77;

for (
  const [kind, choose] of Object.entries({
    "as on software": (d: GpuDevice) => d,
    "as on hardware": asHardware,
  })
) {
  for (const [name, { slots: count, capacity, passes, spare }] of Object.entries(cases)) {
    gpuTest(`cachePlaces lets entries follow those before, with ${name}, ${kind}`, async (device) => {
      const tableLength = pagesFor(capacity);
      const held = upTo(count).map((slot) => slot % 3);
      const lengths = uploadIndices(device, held);
      for (const texts of passes) {
        const { packing, slots, records } = uploadPass(device, { texts, spare });
        const depths = uploadIndices(device, slots.map(() => MARK));
        const places = uploadIndices(
          device,
          new Uint32Array(packing.rows.maximum * 4).fill(MARK),
          [packing.rows.maximum, 4],
        );
        const got = await run(choose(device), (commands) => {
          recordRows(commands, packing.rows);
          cachePlaces(commands, {
            packing,
            slots: uploadIndices(device, slots),
            lengths,
            depths,
            places,
          }, { tableLength, depth: 2 });
        }, [places, depths, lengths]);
        const wanted = {
          places: new Uint32Array(packing.rows.maximum * 4).fill(MARK),
          depths: new Uint32Array(slots.length).fill(MARK),
        };
        records.forEach(([state, position], row) => {
          const slot = slots[state!]!;
          wanted.places.set([state!, position!, slot * tableLength, held[slot]!++], row * 4);
          wanted.depths[state!] = 2;
        });
        assertEquals(got, [wanted.places, wanted.depths, Uint32Array.from(held)]);
      }
    });

    gpuTest(`cachePlaces gives every position its own entry, with ${name}, ${kind}`, async (device) => {
      const tableLength = pagesFor(capacity);
      for (const texts of passes) {
        const { packing, slots, records } = uploadPass(device, { texts, spare });
        const depths = uploadIndices(device, slots.map(() => MARK));
        const mark = new Uint32Array(packing.rows.maximum * 4).fill(MARK);
        const places = uploadIndices(device, mark, [packing.rows.maximum, 4]);
        const got = await run(choose(device), (commands) => {
          recordRows(commands, packing.rows);
          const tensors = { packing, slots: uploadIndices(device, slots), lengths: null, depths, places };
          cachePlaces(commands, tensors, { tableLength, depth: 0 });
        }, [places, depths]);
        const wantedDepths = new Uint32Array(slots.length).fill(MARK);
        records.forEach(([state, position], row) => {
          mark.set([state!, position!, slots[state!]! * tableLength, position!], row * 4);
          wantedDepths[state!] = 0;
        });
        assertEquals(got, [mark, wantedDepths]);
      }
    });
  }
}

const heads = { heads: 4, kvHeads: 2, headDim: 4 };
const [queryWidth, keyWidth] = [16, 8];
const stride = queryWidth + 2 * keyWidth;

/** Kernels that attend by place, and what they are for: rows of any texts, or many rows of one. */
const attentions = { attentionCached: "texts in any slots", attention: "tidy sizes" } as const;

const attentionCases = Object.entries(attentions).flatMap(([kernel, name]) =>
  kvDtypes.map((kvDtype) => ({ kernel, name, kvDtype }))
);

for (const { kernel, name, kvDtype } of attentionCases) {
  gpuTest(
    `a row attends by its place to what its text has in the cache: ${kernel}, ${name}, ${kvDtype}`,
    async (device) => {
      const { slots: count, capacity, passes } = cases[name]!;
      const random = createRandom(17);
      const lengths = blankIndices(device, [count]);
      // Rows that nobody sees are far off, so that a wrong look shows.
      const { pages, tableLength, poolRows } = shuffledPages(random, { tables: count, entries: capacity });
      const far = new Float64Array(poolRows * 2 * keyWidth).fill(9);
      const cache = {
        pool: uploadKv(device, far, { shape: [poolRows, 2 * keyWidth], dtype: kvDtype }),
        pages: uploadIndices(device, pages, [count, tableLength]),
      };
      // Cosine 1 and sine 0: positions turn nothing here.
      const still = upload(device, upTo(4 * capacity).map((i) => 1 - i % 2), [capacity, 2, 2]);
      /** Queries, keys and values that each slot's text has run so far, a row each. */
      const history = upTo(count).map((): number[][] => []);
      for (const texts of passes) {
        const { packing, slots, records } = uploadPass(device, { texts, spare: undefined });
        const { rows } = packing;
        const qkv = random.normals(rows.maximum * stride).map((value) => roundKv(value, kvDtype));
        const q = upload(device, qkv, [rows.maximum, stride]);
        const places = { rows, records: blankIndices(device, [rows.maximum, 4]) };
        const out = blank(device, [rows.maximum, queryWidth]);
        const [got] = await run(device, (commands) => {
          const depths = blankIndices(device, [slots.length]);
          const tensors = { slots: uploadIndices(device, slots), lengths, depths, places: places.records };
          cachePlaces(commands, { packing, ...tensors }, { tableLength, depth: 1 });
          cacheAppend(commands, { qkv: q, places, cache, table: still }, heads);
          const settings = { ...heads, layout: { kOffset: 0, vOffset: keyWidth }, longest: capacity };
          if (kernel === "attentionCached") {
            attentionCached(commands, { q, cache, packing: places, out }, settings);
            return;
          }
          const logSumExp = blank(device, [rows.maximum, heads.heads]);
          const keys = { kind: "cache", pages: cache.pages } as const;
          attention(commands, { q, kv: cache.pool, packing: places, out, logSumExp }, { ...settings, keys });
        }, [out]);
        const wanted = records.flatMap(([state], row) => {
          const text = history[slots[state!]!]!;
          text.push(Array.from(qkv.subarray(row * stride, (row + 1) * stride)));
          return attendToAll(text);
        });
        assertClose(got!, wanted, { relative: 5e-6, label: "attended" });
      }
    },
  );
}

/** What the last of some rows of queries, keys and values gets from attention to all of them. */
function attendToAll(rows: readonly number[][]): number[] {
  const part = (start: number, width: number): Float64Array =>
    Float64Array.from(rows.flatMap((row) => row.slice(start, start + width)));
  const { out } = reference.attention({
    q: part(0, queryWidth),
    k: part(queryWidth, keyWidth),
    v: part(queryWidth + keyWidth, keyWidth),
    spans: rows.flatMap(() => [0, rows.length]),
  }, { heads: heads.heads, keyValueHeads: heads.kvHeads, headDim: heads.headDim });
  return Array.from(out.slice(-queryWidth));
}

gpuTest("cachePlaces refuses more rows than one workgroup can loop over", (device) => {
  const plan = planAllocator();
  function record(count: number, on: GpuDevice): void {
    const packing = fixedPacking(plan, { count });
    const places = createTensor(plan, { shape: [count, 4], dtype: "u32", label: "places" });
    const values = createTensor(plan, { shape: [count], dtype: "u32", label: "slots" });
    const tensors = { packing, slots: values, lengths: null, depths: values, places };
    cachePlaces(new Commands(on, "test"), tensors, { tableLength: 1, depth: 0 });
  }
  assertThrows(() => record(260_001, device), RangeError, "Cannot place 260001 tokens in a cache at once");
  assertThrows(() => record(2_080_001, asHardware(device)), RangeError, "at most 2080000");
  return Promise.resolve();
});
