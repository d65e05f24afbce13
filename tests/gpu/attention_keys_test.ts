/** Attention to keys that are not the packed rows: the state's, or a cache's. */
import { assert } from "@std/assert";
import { type AttentionOptions, columns, range } from "../support/attention_case.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { recordRows, uploadPacking } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import * as reference from "../reference/attention.ts";
import { packSpans } from "../reference/spans.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { attention, attentionBackward } from "../../gpu/kernels/attention.ts";
import { writeTensor } from "../../gpu/tensor.ts";

/** Rounding of sums over a few dozen keys. */
const relative = 3e-6;

const variants: readonly (AttentionOptions & { name: string; hardware?: boolean })[] = [
  { name: "as the adapter allows" },
  { name: "without subgroups", useSubgroups: false },
  { name: "with hardware launch shapes", hardware: true },
  { name: "in windows of 8 keys", window: 8 },
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

for (const { name: variant, hardware, ...options } of variants) {
  gpuTest(`attention to cached keys equals the last rows of the whole text, ${variant}`, async (device) => {
    hardwareDevice ??= asHardware(device);
    const [heads, kvHeads, headDim, total, first] = [4, 2, 8, 83, 50];
    const random = createRandom(9);
    const qkv = random.normals(total * 64);
    const [cacheStart, cacheRows] = [24, 120];
    const kv = new Float64Array(cacheRows * 32).fill(NaN);
    for (let t = 0; t < total; t++) kv.set(qkv.subarray(t * 64 + 32, t * 64 + 64), (cacheStart + t) * 32);
    const rows = total - first;
    const packing = uploadPacking(device, { positions: [range(rows)], tokens: rows, spare: 9 });
    const records = range(rows).flatMap((i) => [i, first + i, cacheStart, cacheStart + first + i]);
    writeTensor(device, packing.records, Uint32Array.from(records));
    const shape = [packing.rows.maximum, 32];
    const q = Float64Array.from(
      { length: packing.rows.maximum * 32 },
      (_, i) => qkv[(first + Math.floor(i / 32)) * 64 + i % 32] ?? NaN,
    );
    const tensors = {
      q: upload(device, q, shape),
      kv: upload(device, kv, [cacheRows, 32]),
      packing,
      out: blank(device, shape),
      logSumExp: blank(device, [packing.rows.maximum, heads]),
    };
    const layout = { kOffset: 0, vOffset: 16 };
    const [out] = await run(hardware ? hardwareDevice : device, (commands) => {
      recordRows(commands, packing.rows);
      const keys = { kind: "cache", count: cacheRows } as const;
      attention(commands, tensors, { heads, kvHeads, headDim, ...options, layout, keys, longest: total });
    }, [tensors.out]);
    const whole = reference.attention({
      q: columns(qkv, { stride: 64, start: 0, width: 32 }),
      k: columns(qkv, { stride: 64, start: 32, width: 16 }),
      v: columns(qkv, { stride: 64, start: 48, width: 16 }),
      spans: packSpans([total]),
    }, { heads, keyValueHeads: kvHeads, headDim });
    assertClose(out!.subarray(0, rows * 32), whole.out.subarray(first * 32), { relative, label: "out" });
  });
}
