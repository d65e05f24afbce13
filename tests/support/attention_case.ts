/** Runs the attention kernels, and their reference, on one random fused projection. */
import { createRandom } from "./random.ts";
import { blank, run, upload } from "./device.ts";
import { recordRows, uploadPacking } from "./packing.ts";
import * as reference from "../reference/attention.ts";
import { packSpans } from "../reference/spans.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { attention, attentionBackward, type AttentionSettings } from "../../gpu/kernels/attention.ts";
import { fusedLayout } from "../../gpu/kernels/attention_heads.ts";

/** A fused projection of sequences one after the other, whose row count has `spare` rows more if given. */
export interface AttentionCase extends Pick<AttentionSettings, "heads" | "kvHeads" | "headDim"> {
  readonly lengths: readonly number[];
  readonly spare?: number;
}

/** How the kernels go about it. */
export type AttentionOptions = Pick<AttentionSettings, "window" | "variant" | "longest">;

/** What the kernels make of a random fused projection. Rows past the count hold NaN in every tensor. */
export async function runFused(
  device: GpuDevice,
  { lengths, spare, heads, kvHeads, headDim, options = {}, forwardOnly = false }: AttentionCase & {
    options?: AttentionOptions;
    forwardOnly?: boolean;
  },
): Promise<{
  inputs: { qkv: Float64Array; gradOut: Float64Array };
  out: Float32Array;
  logSumExp: Float32Array;
  gradQkv: Float32Array;
  dispatches: number;
}> {
  const packing = uploadPacking(device, { positions: lengths.map(range), tokens: 0, spare });
  const rows = packing.rows.maximum;
  const stride = (heads + 2 * kvHeads) * headDim;
  const width = heads * headDim;
  const count = lengths.reduce((sum, length) => sum + length, 0);
  const random = createRandom(1);
  const padded = (values: Float64Array, columns: number): Float64Array =>
    Float64Array.from({ length: rows * columns }, (_, i) => values[i] ?? NaN);
  // Rounded as the upload rounds: differences of large scores would magnify that.
  const inputs = {
    qkv: random.normals(count * stride, 1.5).map(Math.fround),
    gradOut: random.normals(count * width).map(Math.fround),
  };
  const qkv = upload(device, padded(inputs.qkv, stride), [rows, stride]);
  const out = blank(device, [rows, width]);
  const logSumExp = blank(device, [rows, heads]);
  const gradQkv = blank(device, [rows, stride]);
  const settings = { heads, kvHeads, headDim, layout: fusedLayout({ heads, kvHeads, headDim }), ...options };
  let dispatches = 0;
  const results = await run(device, (commands) => {
    recordRows(commands, packing.rows);
    const tensors = { q: qkv, kv: qkv, packing, out, logSumExp };
    attention(commands, tensors, settings);
    if (!forwardOnly) {
      const gradOut = upload(device, padded(inputs.gradOut, width), [rows, width]);
      const delta = blank(device, [rows, heads]);
      attentionBackward(commands, { ...tensors, gradOut, gradQ: gradQkv, gradKv: gradQkv, delta }, settings);
    }
    dispatches = commands.steps.length;
  }, [out, logSumExp, gradQkv]);
  const [gotOut, gotLogSumExp, gotGradQkv] = results as Float32Array[];
  return { inputs, out: gotOut!, logSumExp: gotLogSumExp!, gradQkv: gotGradQkv!, dispatches };
}

/** The reference on the same numbers, its gradients put together as the fused projection is. */
export function fusedReference(
  { qkv, gradOut }: { qkv: Float64Array; gradOut: Float64Array },
  { lengths, heads, kvHeads, headDim }: AttentionCase,
): { out: Float64Array; logSumExp: Float64Array; gradQkv: Float64Array } {
  const stride = (heads + 2 * kvHeads) * headDim;
  const { kOffset, vOffset } = fusedLayout({ heads, kvHeads, headDim });
  const input = {
    q: columns(qkv, { stride, start: 0, width: kOffset }),
    k: columns(qkv, { stride, start: kOffset, width: vOffset - kOffset }),
    v: columns(qkv, { stride, start: vOffset, width: stride - vOffset }),
    spans: packSpans(lengths),
  };
  const sizes = { heads, keyValueHeads: kvHeads, headDim };
  const forward = reference.attention(input, sizes);
  const { gradQ, gradK, gradV } = reference.attentionBackward({ ...input, ...forward, gradOut }, sizes);
  const kvWidth = vOffset - kOffset;
  const gradQkv = Float64Array.from(qkv, (_, i) => {
    const [row, column] = [Math.floor(i / stride), i % stride];
    if (column < kOffset) return gradQ[row * kOffset + column]!;
    return column < vOffset
      ? gradK[row * kvWidth + column - kOffset]!
      : gradV[row * kvWidth + column - vOffset]!;
  });
  return { ...forward, gradQkv };
}

/** Columns start to start + width - 1 of a matrix with `stride` columns. */
export function columns(
  matrix: ArrayLike<number>,
  { stride, start, width }: { stride: number; start: number; width: number },
): Float64Array {
  return Float64Array.from(
    { length: matrix.length / stride * width },
    (_, i) => matrix[Math.floor(i / width) * stride + start + i % width]!,
  );
}

/** 0 to length - 1. */
export function range(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}
