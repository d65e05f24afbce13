import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type AttentionCase,
  type AttentionOptions,
  columns,
  fusedReference,
  range,
  runFused,
} from "../support/attention_case.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { uploadPacking } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { writtenPart } from "../support/row_cases.ts";
import * as reference from "../reference/attention.ts";
import { addScaled, dot } from "../reference/rows.ts";
import { packSpans } from "../reference/spans.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { Commands } from "../../gpu/commands.ts";
import { attention, attentionBackward, type AttentionSettings } from "../../gpu/kernels/attention.ts";

/** Rounding of sums over a few hundred keys. */
const relative = 3e-6;

/** Few different heads: each needs its own pipelines. */
const tidyHeads = { heads: 4, kvHeads: 4, headDim: 64 };
const oddHeads = { heads: 6, kvHeads: 2, headDim: 12 };

const cases: Readonly<Record<string, AttentionCase>> = {
  "tidy sizes": { ...tidyHeads, lengths: [64, 64] },
  "odd sizes": { ...oddHeads, lengths: [37, 1, 0, 70, 3, 2] },
  "one row": { ...oddHeads, lengths: [1] },
  "a dynamic count": { ...oddHeads, lengths: [30, 13], spare: 60 },
  "a dynamic count of zero": { ...oddHeads, lengths: [], spare: 40 },
};

const variants: readonly (AttentionOptions & { name: string; hardware?: boolean })[] = [
  { name: "as the adapter allows" },
  { name: "without subgroups", variant: "lanes_8" },
  { name: "with hardware launch shapes", hardware: true },
  { name: "with 64 lanes", variant: "lanes_64" },
  { name: "in windows of 32 keys", window: 32 },
  { name: "in windows of 24 keys without subgroups", window: 24, variant: "lanes_8" },
];

let hardwareDevice: GpuDevice | null = null;

for (const [name, attentionCase] of Object.entries(cases)) {
  for (const { name: way, hardware, ...options } of variants) {
    gpuTest(`attention and its gradients match the reference with ${name}, ${way}`, async (device) => {
      hardwareDevice ??= asHardware(device);
      await assertMatches(hardware ? hardwareDevice : device, { ...attentionCase, options });
    });
  }
}

for (const headDim of [4, 32, 96]) {
  gpuTest(`attention has any head size: ${headDim}`, async (device) => {
    await assertMatches(device, { lengths: [9, 23], heads: 2, kvHeads: 1, headDim });
  });
}

gpuTest("attention gives the same bits each time", async (device) => {
  const attentionCase = { lengths: [50, 90], heads: 2, kvHeads: 1, headDim: 32 };
  const [first, second] = [await runFused(device, attentionCase), await runFused(device, attentionCase)];
  assertEquals(first.out, second.out);
  assertEquals(first.gradQkv, second.gradQkv);
});

gpuTest("attention takes queries and keys of two tensors and leaves other columns", async (device) => {
  const [heads, kvHeads, headDim] = [2, 1, 8];
  const random = createRandom(3);
  const q = random.normals(21 * 20);
  const kv = random.normals(21 * 28);
  const gradOut = random.normals(21 * 16);
  const packing = uploadPacking(device, { positions: [range(21)], tokens: 21 });
  const [out, logSumExp, delta] = [blank(device, [21, 16]), blank(device, [21, 2]), blank(device, [21, 2])];
  const [gradQ, gradKv] = [blank(device, [21, 20]), blank(device, [21, 28])];
  const settings = { heads, kvHeads, headDim, layout: { kOffset: 16, vOffset: 4 } };
  const [gotOut, gotGradQ, gotGradKv] = await run(device, (commands) => {
    const tensors = {
      q: upload(device, q, [21, 20]),
      kv: upload(device, kv, [21, 28]),
      packing,
      out,
      logSumExp,
    };
    attention(commands, tensors, settings);
    const gradients = { gradOut: upload(device, gradOut, [21, 16]), gradQ, gradKv, delta };
    attentionBackward(commands, { ...tensors, ...gradients }, settings);
  }, [out, gradQ, gradKv]);
  const input = {
    q: columns(q, { stride: 20, start: 0, width: 16 }),
    k: columns(kv, { stride: 28, start: 16, width: 8 }),
    v: columns(kv, { stride: 28, start: 4, width: 8 }),
    spans: packSpans([21]),
  };
  const sizes = { heads, keyValueHeads: kvHeads, headDim };
  const forward = reference.attention(input, sizes);
  const backward = reference.attentionBackward({ ...input, ...forward, gradOut }, sizes);
  assertClose(gotOut!, forward.out, { relative, label: "out" });
  const parts = {
    gradQ: [gotGradQ!, { stride: 20, start: 0, width: 16 }, backward.gradQ],
    gradK: [gotGradKv!, { stride: 28, start: 16, width: 8 }, backward.gradK],
    gradV: [gotGradKv!, { stride: 28, start: 4, width: 8 }, backward.gradV],
  } as const;
  for (const [label, [data, part, wanted]] of Object.entries(parts)) {
    assertClose(columns(data, part), wanted, { relative, label });
  }
  const untouched = [[gotGradQ!, 20, 16], [gotGradKv!, 28, 0], [gotGradKv!, 28, 12]] as const;
  for (const [data, stride, start] of untouched) {
    assert(columns(data, { stride, start, width: 4 }).every(Number.isNaN));
  }
});

/** More keys than one dispatch loops over: the fewer in a turn and the larger the head, the sooner. */
const pastTheLimit = [
  { name: "8 keys a turn", tokens: 4200, headDim: 256, options: { variant: "lanes_8" as const } },
  { name: "as the adapter allows", tokens: 1000, headDim: 4096, options: {} },
];

for (const { name, tokens, headDim, options } of pastTheLimit) {
  gpuTest(
    `attention and its gradients go past the loop limit in several dispatches, ${name}`,
    async (device) => {
      await assertPastTheLimit(device, { tokens, headDim, options });
    },
  );
}

async function assertPastTheLimit(
  device: GpuDevice,
  { tokens, headDim, options }: { tokens: number; headDim: number; options: AttentionOptions },
): Promise<void> {
  const attentionCase = { lengths: [tokens], heads: 1, kvHeads: 1, headDim };
  const { inputs, out, logSumExp, gradQkv, dispatches } = await runFused(device, {
    ...attentionCase,
    options,
  });
  assertEquals(dispatches, 7);
  const { q, k, v } = oneHead(inputs.qkv, headDim);
  const gradients = oneHead(gradQkv, headDim);
  const gradOut = rowsOf(inputs.gradOut, headDim);
  const outputs = rowsOf(out, headDim);
  const scale = 1 / Math.sqrt(headDim);
  for (const i of [0, tokens - 210, tokens - 1]) {
    const direct = directRow(inputs.qkv, { headDim, i });
    assertClose([logSumExp[i]!], [direct.logSumExp], { relative: 1e-5, label: `logSumExp of row ${i}` });
    assertClose(outputs(i), direct.out, { relative: 1e-5, label: `out of row ${i}` });
    const gradQ = new Float64Array(headDim);
    direct.p.forEach((p, j) => {
      const gradP = dot(gradOut(i), v(j)) - dot(gradOut(i), direct.out);
      addScaled(gradQ, { source: k(j), scale: p * gradP * scale });
    });
    assertClose(gradients.q(i), gradQ, { relative: 1e-5, label: `gradQ of row ${i}` });
  }
  for (const j of [0, 5, tokens - 1]) {
    const [gradK, gradV] = [new Float64Array(headDim), new Float64Array(headDim)];
    for (let i = j; i < tokens; i++) {
      const p = Math.exp(dot(q(i), k(j)) * scale - logSumExp[i]!);
      const gradP = dot(gradOut(i), v(j)) - dot(gradOut(i), outputs(i));
      addScaled(gradK, { source: q(i), scale: p * gradP * scale });
      addScaled(gradV, { source: gradOut(i), scale: p });
    }
    assertClose(gradients.k(j), gradK, { relative: 1e-5, label: `gradK of row ${j}` });
    assertClose(gradients.v(j), gradV, { relative: 1e-5, label: `gradV of row ${j}` });
  }
}

gpuTest("attention reads a sequence of 70,000 rows", async (device) => {
  const sizes = { lengths: [70000], heads: 1, kvHeads: 1, headDim: 4 };
  const { inputs, out, logSumExp } = await runFused(device, { ...sizes, forwardOnly: true });
  for (const i of [65534, 69999]) {
    const direct = directRow(inputs.qkv, { headDim: 4, i });
    assertClose([logSumExp[i]!], [direct.logSumExp], { relative: 1e-5, label: `logSumExp of row ${i}` });
    // Values of both signs cancel.
    assertClose(rowsOf(out, 4)(i), direct.out, { relative: 1e-4, label: `out of row ${i}` });
  }
});

gpuTest("attention refuses heads that do not fit", (device) => {
  const settings = { heads: 4, kvHeads: 2, headDim: 8, layout: { kOffset: 32, vOffset: 48 } };
  const packing = uploadPacking(device, { positions: [range(3)], tokens: 3 });
  const qkv = blank(device, [3, 64]);
  const tensors = { q: qkv, kv: qkv, packing, out: blank(device, [3, 32]), logSumExp: blank(device, [3, 4]) };
  const record = (changed: Partial<AttentionSettings>): void => {
    attention(new Commands(device, "test"), tensors, { ...settings, ...changed });
  };
  record({});
  assertThrows(() => record({ headDim: 6 }), RangeError, "headDim is 6, not a multiple of 4");
  assertThrows(() => record({ kvHeads: 3 }), RangeError, "4 heads cannot share 3");
  assertThrows(
    () => record({ layout: { kOffset: 32, vOffset: 52 } }),
    TypeError,
    "expected at least 32 and 68",
  );
  assertThrows(() => record({ headDim: 4 }), TypeError, "out has shape (3,32), expected (3,16)");
  return Promise.resolve();
});

async function assertMatches(
  device: GpuDevice,
  attentionCase: AttentionCase & { options?: AttentionOptions },
): Promise<void> {
  const got = await runFused(device, attentionCase);
  const wanted = fusedReference(got.inputs, attentionCase);
  for (const key of ["out", "logSumExp", "gradQkv"] as const) {
    assertClose(writtenPart(got[key], wanted[key].length), wanted[key], { relative, label: key });
  }
}

/** One row of one sequence with one head, from the definition: p_j = exp(q . k_j / sqrt(D)) / sum. */
function directRow(
  qkv: Float64Array,
  { headDim, i }: { headDim: number; i: number },
): { logSumExp: number; p: number[]; out: Float64Array } {
  const { q, k, v } = oneHead(qkv, headDim);
  const scores = range(i + 1).map((j) => dot(q(i), k(j)) / Math.sqrt(headDim));
  const logSumExp = Math.log(scores.reduce((sum, score) => sum + Math.exp(score), 0));
  const p = scores.map((score) => Math.exp(score - logSumExp));
  const out = new Float64Array(headDim);
  p.forEach((scale, j) => addScaled(out, { source: v(j), scale }));
  return { logSumExp, p, out };
}

type RowOf = (i: number) => Float64Array;

/** Rows of the three parts of a fused projection with one head. */
function oneHead(qkv: ArrayLike<number>, headDim: number): { q: RowOf; k: RowOf; v: RowOf } {
  const part = rowsOf(qkv, headDim);
  return { q: (i) => part(3 * i), k: (i) => part(3 * i + 1), v: (i) => part(3 * i + 2) };
}

function rowsOf(matrix: ArrayLike<number>, width: number): RowOf {
  const values = Float64Array.from(matrix);
  return (i) => values.subarray(i * width, (i + 1) * width);
}
