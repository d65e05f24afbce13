/** Attention to keys that are not the packed rows: the state's, or a cache's. */
import { assert, assertThrows } from "@std/assert";
import { type AttentionOptions, columns, range } from "../support/attention_case.ts";
import { assertClose } from "../support/close.ts";
import { blank, blankIndices, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { kvDtypes, roundKv, uploadKv } from "../support/kv.ts";
import { recordRows, uploadPacking } from "../support/packing.ts";
import { poolRow, shuffledPages } from "../support/pages.ts";
import { createRandom } from "../support/random.ts";
import { writtenPart } from "../support/row_cases.ts";
import * as reference from "../reference/attention.ts";
import { packSpans } from "../reference/spans.ts";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import {
  attention,
  attentionBackward,
  type AttentionSettings,
  type KeyRows,
} from "../../gpu/kernels/attention.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import { writeTensor } from "../../gpu/tensor.ts";

/** Rounding of sums over a few dozen keys. */
const relative = 3e-6;

const variants: readonly (AttentionOptions & { name: string; hardware?: boolean })[] = [
  { name: "as the adapter allows" },
  { name: "without subgroups", variant: "lanes_8" },
  { name: "with hardware launch shapes", hardware: true },
  { name: "in windows of 32 keys", window: 32 },
];

let hardwareDevice: GpuDevice | null = null;

/** Positions that take part, of sequences of 45 tokens. */
const chosen: Readonly<Record<string, readonly (readonly number[])[]>> = {
  "some rows of each sequence": [range(45).filter((t) => t % 3 > 0), [44], [], [0, 7, 8, 20]],
  "all rows": [range(45), range(45)],
  "no row": [[], []],
};

for (const [name, positions] of Object.entries(chosen)) {
  for (const { name: variant, hardware, ...options } of variants) {
    gpuTest(`attention to keys of the state is dense attention's of ${name}, ${variant}`, async (device) => {
      hardwareDevice ??= asHardware(device);
      await assertStateKeysMatch(hardware ? hardwareDevice : device, { positions, options });
    });
  }
}

/** Packed queries against the keys of all rows: what dense attention gives with the other queries' gradients 0. */
async function assertStateKeysMatch(
  device: GpuDevice,
  { positions, options }: { positions: readonly (readonly number[])[]; options: AttentionOptions },
): Promise<void> {
  const [tokens, width, kvWidth] = [45, 16, 16];
  const count = positions.length * tokens;
  const packing = uploadPacking(device, { positions, tokens, spare: 5 });
  const packedRows = positions.flatMap((kept, b) => kept.map((position) => b * tokens + position));
  const random = createRandom(8);
  const dense = { q: random.normals(count * width), kv: random.normals(count * kvWidth) };
  const before = random.normals(count * kvWidth).map(Math.fround);
  const gradDense = new Float64Array(count * width);
  for (const row of packedRows) gradDense.set(random.normals(width), row * width);
  const pack = (values: Float64Array): Float64Array =>
    Float64Array.from(
      { length: packing.rows.maximum * width },
      (_, i) => values[(packedRows[Math.floor(i / width)] ?? NaN) * width + i % width] ?? NaN,
    );
  const shape = [packing.rows.maximum, width];
  const tensors = {
    q: upload(device, pack(dense.q), shape),
    kv: upload(device, dense.kv, [count, kvWidth]),
    packing,
    out: blank(device, shape),
    logSumExp: blank(device, [packing.rows.maximum, 4]),
  };
  const gradients = {
    gradOut: upload(device, pack(gradDense), shape),
    gradQ: blank(device, shape),
    gradKv: upload(device, before, [count, kvWidth]),
    delta: blank(device, [packing.rows.maximum, 4]),
  };
  const sizes = { heads: 4, kvHeads: 2, headDim: 4 };
  const settings = {
    ...sizes,
    ...options,
    layout: { kOffset: 0, vOffset: 8 },
    keys: { kind: "state", count, tokens } as const,
    longest: tokens,
  };
  const [out, gradQ, gradKv] = await run(device, (commands) => {
    recordRows(commands, packing.rows);
    attention(commands, tensors, settings);
    attentionBackward(commands, { ...tensors, ...gradients }, { ...settings, accumulate: true });
  }, [tensors.out, gradients.gradQ, gradients.gradKv]);

  const input = {
    q: dense.q,
    k: columns(dense.kv, { stride: kvWidth, start: 0, width: 8 }),
    v: columns(dense.kv, { stride: kvWidth, start: 8, width: 8 }),
    spans: packSpans(positions.map(() => tokens)),
  };
  const referenceSizes = { heads: 4, keyValueHeads: 2, headDim: 4 };
  const forward = reference.attention(input, referenceSizes);
  const backward = reference.attentionBackward({ ...input, ...forward, gradOut: gradDense }, referenceSizes);
  const end = packedRows.length * width;
  assertClose(out!.subarray(0, end), pack(forward.out).subarray(0, end), { relative, label: "out" });
  assertClose(gradQ!.subarray(0, end), pack(backward.gradQ).subarray(0, end), { relative, label: "gradQ" });
  assert(out!.subarray(end).every(Number.isNaN), "rows past the count were written");
  const added = gradKv!.map((value, i) => value - before[i]!);
  for (
    const [label, start, wanted] of [["gradK", 0, backward.gradK], ["gradV", 8, backward.gradV]] as const
  ) {
    assertClose(columns(added, { stride: kvWidth, start, width: 8 }), wanted, { relative: 1e-5, label });
  }
}

/** The rows from `first` on, of a text of `total` tokens. */
interface LastRows extends Pick<AttentionSettings, "heads" | "kvHeads" | "headDim"> {
  readonly total: number;
  readonly first: number;
}

const lastRows: Readonly<Record<string, LastRows>> = {
  "the last rows of the whole text": { heads: 4, kvHeads: 2, headDim: 8, total: 83, first: 50 },
  "all rows of a text with odd heads": { heads: 6, kvHeads: 2, headDim: 12, total: 37, first: 0 },
  "a text of one token": { heads: 4, kvHeads: 2, headDim: 8, total: 1, first: 0 },
  "no row": { heads: 4, kvHeads: 2, headDim: 8, total: 5, first: 5 },
};

for (const [name, rows] of Object.entries(lastRows)) {
  for (const { name: variant, hardware, ...options } of variants) {
    for (const kvDtype of kvDtypes) {
      gpuTest(`attention to cached keys equals ${name}, ${variant}, ${kvDtype}`, async (device) => {
        hardwareDevice ??= asHardware(device);
        await assertCachedKeysMatch(hardware ? hardwareDevice : device, { ...rows, kvDtype, options });
      });
    }
  }
}

/** Rows of a text against its keys in a cache: what attention over the whole text gives. */
async function assertCachedKeysMatch(
  device: GpuDevice,
  { heads, kvHeads, headDim, total, first, kvDtype, options }: LastRows & {
    kvDtype: KvDtype;
    options: AttentionOptions;
  },
): Promise<void> {
  const random = createRandom(9);
  const [width, kvWidth] = [heads * headDim, kvHeads * headDim];
  const q = random.normals(total * width);
  const keys = random.normals(total * 2 * kvWidth).map((value) => roundKv(value, kvDtype));
  const table = 1;
  const placed = shuffledPages(random, { tables: 3, entries: total + 20 });
  const { pages, tableLength, poolRows } = placed;
  const kv = new Float64Array(poolRows * 2 * kvWidth).fill(NaN);
  for (let entry = 0; entry < total; entry++) {
    const row = keys.subarray(entry * 2 * kvWidth, (entry + 1) * 2 * kvWidth);
    kv.set(row, poolRow(placed, { table, entry }) * 2 * kvWidth);
  }
  const rows = total - first;
  const packing = uploadPacking(device, { positions: [range(rows)], tokens: rows, spare: 9 });
  const seen = range(rows).flatMap((row) => [row, first + row, table * tableLength, first + row]);
  writeTensor(device, packing.records, Uint32Array.from(seen));
  const shape = [packing.rows.maximum, width];
  const queries = new Float64Array(packing.rows.maximum * width).fill(NaN);
  queries.set(q.subarray(first * width));
  const tensors = {
    q: upload(device, queries, shape),
    kv: uploadKv(device, kv, { shape: [poolRows, 2 * kvWidth], dtype: kvDtype }),
    packing,
    out: blank(device, shape),
    logSumExp: blank(device, [packing.rows.maximum, heads]),
  };
  const [out, logSumExp] = await run(device, (commands) => {
    recordRows(commands, packing.rows);
    attention(commands, tensors, {
      ...{ heads, kvHeads, headDim, ...options },
      layout: { kOffset: 0, vOffset: kvWidth },
      keys: { kind: "cache", pages: uploadIndices(device, pages, [pages.length / tableLength, tableLength]) },
      longest: total,
    });
  }, [tensors.out, tensors.logSumExp]);
  const whole = reference.attention({
    q,
    k: columns(keys, { stride: 2 * kvWidth, start: 0, width: kvWidth }),
    v: columns(keys, { stride: 2 * kvWidth, start: kvWidth, width: kvWidth }),
    spans: packSpans([total]),
  }, { heads, keyValueHeads: kvHeads, headDim });
  const wanted = { out: whole.out.subarray(first * width), sums: whole.logSumExp.subarray(first * heads) };
  assertClose(writtenPart(out!, rows * width), wanted.out, { relative, label: "out" });
  assertClose(writtenPart(logSumExp!, rows * heads), wanted.sums, { relative, label: "logSumExp" });
}

gpuTest("attention refuses f16 keys that are not a cache's", (device) => {
  const sizes = { heads: 2, kvHeads: 1, headDim: 4, layout: { kOffset: 0, vOffset: 4 } };
  const packing = uploadPacking(device, { positions: [range(3)], tokens: 3 });
  const tensors = {
    q: blank(device, [3, 8]),
    kv: uploadKv(device, new Float64Array(24), { shape: [3, 8], dtype: "f16" }),
    packing,
    out: blank(device, [3, 8]),
    logSumExp: blank(device, [3, 2]),
  };
  const record = (keys: KeyRows): void => {
    attention(new Commands(device, "test"), tensors, { ...sizes, keys });
  };
  record({ kind: "cache", pages: blankIndices(device, [1, 1]) });
  const message = "kv is f16, expected f32 where it is no cache";
  assertThrows(() => record({ kind: "packed" }), TypeError, message);
  assertThrows(() => record({ kind: "state", count: 3, tokens: 3 }), TypeError, message);
  return Promise.resolve();
});
