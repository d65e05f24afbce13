import { assert, assertEquals, assertThrows } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { packingRecords } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { caseRows, recordRows } from "../support/row_cases.ts";
import * as reference from "../reference/attention.ts";
import { row } from "../reference/rows.ts";
import { packSpans } from "../reference/spans.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import {
  attention,
  attentionBackward,
  type AttentionSettings,
  fusedLayout,
} from "../../gpu/kernels/attention.ts";
import type { Packing } from "../../gpu/packing.ts";
import { tensorFrom } from "../../gpu/tensor.ts";

/** Rounding of sums over a few hundred keys. */
const relative = 3e-6;

type Sizes = Pick<AttentionSettings, "heads" | "kvHeads" | "headDim">;
type Options = Pick<AttentionSettings, "window" | "useSubgroups" | "longest">;

/** Sequences of these lengths one after the other; `maximum` rows are there, the others undefined. */
interface Sequences {
  readonly lengths: readonly number[];
  readonly maximum?: number;
}

function sequencesPacking(device: GpuDevice, { lengths, maximum }: Sequences): Packing {
  const records = packingRecords(lengths.map((length) => Array.from({ length }, (_, i) => i)), { tokens: 0 });
  const count = records.length / 4;
  const data = new Uint32Array((maximum ?? count) * 4).fill(0xffffffff);
  data.set(records);
  const rows = caseRows(device, { count, maximum: maximum ?? count });
  return { rows, records: tensorFrom(device, { data, shape: [rows.maximum, 4], label: "packing" }) };
}

/** Columns start to start + width - 1 of a matrix. */
function columns(
  matrix: ArrayLike<number>,
  { stride, start, width }: { stride: number; start: number; width: number },
): Float64Array {
  const rows = matrix.length / stride;
  return Float64Array.from(
    { length: rows * width },
    (_, i) => matrix[Math.floor(i / width) * stride + start + i % width]!,
  );
}

/** A fused projection and what the kernels make of it. */
async function runFused(
  device: GpuDevice,
  { sequences, sizes, options = {}, seed = 1 }: {
    sequences: Sequences;
    sizes: Sizes;
    options?: Options;
    seed?: number;
  },
): Promise<Record<"qkv" | "gradOut" | "out" | "logSumExp" | "gradQkv", Float64Array>> {
  const { heads, kvHeads, headDim } = sizes;
  const packing = sequencesPacking(device, sequences);
  const rows = packing.rows.maximum;
  const stride = (heads + 2 * kvHeads) * headDim;
  const random = createRandom(seed);
  // Rounded as the upload rounds, so that the reference gets the same numbers.
  const qkv = Float64Array.from(random.normals(rows * stride, 1.5), Math.fround);
  const gradOut = Float64Array.from(random.normals(rows * heads * headDim), Math.fround);
  const qkvTensor = upload(device, qkv, [rows, stride]);
  const out = blank(device, [rows, heads * headDim]);
  const logSumExp = blank(device, [rows, heads]);
  const gradQkv = blank(device, [rows, stride]);
  const settings = { ...sizes, ...options, layout: fusedLayout(sizes) };
  const results = await run(device, (commands) => {
    const tensors = { q: qkvTensor, kv: qkvTensor, packing, out, logSumExp };
    attention(commands, tensors, settings);
    attentionBackward(commands, {
      ...tensors,
      gradOut: upload(device, gradOut, [rows, heads * headDim]),
      gradQ: gradQkv,
      gradKv: gradQkv,
      delta: blank(device, [rows, heads]),
    }, settings);
    recordRows(commands, packing.rows);
  }, [out, logSumExp, gradQkv]);
  const [gotOut, gotLogSumExp, gotGradQkv] = results.map((data) => Float64Array.from(data));
  return { qkv, gradOut, out: gotOut!, logSumExp: gotLogSumExp!, gradQkv: gotGradQkv! };
}
