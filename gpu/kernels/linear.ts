/**
 * The linear layer y = x W^T as three matrix products; every layout is read as it lies in memory. A weight that is too
 * large to be bound is taken in runs of rows, each of which makes, or reads, some columns of y.
 */
import type { Commands } from "../commands.ts";
import { type Matrix, rowWindows } from "../packed_matrix.ts";
import type { Rows } from "../rows.ts";
import { checkShape, elementCount, type Tensor, viewTensor } from "../tensor.ts";
import { matmul } from "./matmul.ts";
import { rmsNorm } from "./rms_norm.ts";
import { swiglu } from "./swiglu.ts";
import { matmulVector, type VectorInput } from "./matmul_vector.ts";

/** A (rows, N) tensor from a column on; rows keep their distance. */
function columnsFrom(tensor: Tensor, start: number): Tensor {
  return start === 0 ? tensor : viewTensor(tensor, { start, shape: [elementCount(tensor.shape) - start] });
}

/** Records out = v W^T (+ residual) for few rows, see `matmulVector`. */
function vectorProduct(
  commands: Commands,
  { x, weight, residual, out }: { x: Tensor; weight: Matrix; residual: Tensor | null; out: Tensor },
  { rows, input = { kind: "plain" } }: { rows: Rows; input?: VectorInput },
): void {
  for (const { matrix, start } of rowWindows(commands.device, weight)) {
    matmulVector(commands, {
      x,
      weight: matrix,
      residual: residual && columnsFrom(residual, start),
      out: columnsFrom(out, start),
    }, { rows, input, outStride: weight.shape[0]! });
  }
}

/** Records out = x W^T (+ residual) by the kernel for `partOf` rows. */
function product(
  commands: Commands,
  { x, weight, residual, out }: { x: Tensor; weight: Matrix; residual: Tensor | null; out: Tensor },
  { rows, partOf }: { rows: Rows; partOf: number },
): void {
  if (partOf <= commands.device.tuning.vectorRows) {
    vectorProduct(commands, { x, weight, residual, out }, { rows });
    return;
  }
  const [columns, depth] = weight.shape as [number, number];
  for (const { matrix, start, count } of rowWindows(commands.device, weight)) {
    matmul(commands, {
      a: x,
      b: matrix,
      residual: residual && columnsFrom(residual, start),
      out: columnsFrom(out, start),
    }, {
      rows: rows.maximum,
      columns: count,
      depth,
      outStride: columns,
      counted: { dimension: "rows", rows },
      partOf,
    });
  }
}

/**
 * Records out = x W^T. x (rows, K) f32; weight (N, K) in any format; out (rows, N) f32.
 *
 * @param partOf How many rows the given ones are some of, if they are not all: the kernel is chosen for so many,
 * so that the rows come out as they do all at once, bit for bit.
 */
export function linear(
  commands: Commands,
  { x, weight, out }: { x: Tensor; weight: Matrix; out: Tensor },
  { rows, partOf = rows.maximum }: { rows: Rows; partOf?: number },
): void {
  const [columns, depth] = weight.shape as [number, number];
  checkShape("linear", { x: [x, [rows.maximum, depth]], out: [out, [rows.maximum, columns]] });
  product(commands, { x, weight, residual: null, out }, { rows, partOf });
}

/**
 * Records out = residual + x W^T. x (rows, K); weight (N, K) in any format; residual and out (rows, N), two different
 * tensors. The others are f32.
 */
export function linearAdd(
  commands: Commands,
  { x, weight, residual, out }: { x: Tensor; weight: Matrix; residual: Tensor; out: Tensor },
  { rows }: { rows: Rows },
): void {
  const [columns, depth] = weight.shape as [number, number];
  const shape = [rows.maximum, columns];
  checkShape("linearAdd", {
    x: [x, [rows.maximum, depth]],
    residual: [residual, shape],
    out: [out, shape],
  });
  product(commands, { x, weight, residual, out }, { rows, partOf: rows.maximum });
}

/**
 * Records out = RMSNorm(x) W^T; few rows take one dispatch where nothing is kept. x (rows, K); norm (K); weight (N, K) in
 * any format; out (rows, N); normed (rows, K) and rrms (rows), as `rmsNorm` leaves them, are written for many rows or
 * with `keeps`. The others are f32.
 */
export function normLinear(
  commands: Commands,
  { x, norm, weight, out, normed, rrms }: {
    x: Tensor;
    norm: Tensor;
    weight: Matrix;
    out: Tensor;
    normed: Tensor;
    rrms: Tensor;
  },
  { rows, eps, keeps }: { rows: Rows; eps: number; keeps: boolean },
): void {
  if (!keeps && rows.maximum <= commands.device.tuning.vectorRows) {
    const input = { kind: "normed", norm, eps } as const;
    vectorProduct(commands, { x, weight, residual: null, out }, { rows, input });
    return;
  }
  rmsNorm(commands, { x, weight: norm, out: normed, rrms }, { rows, eps });
  linear(commands, { x: normed, weight, out }, { rows });
}

/**
 * Records out = residual + SwiGLU(gateUp) W^T; few rows take one dispatch where nothing is kept. gateUp (rows, 2 K);
 * weight (N, K) in any format; residual and out (rows, N), two different tensors; activated (rows, K), as `swiglu`
 * leaves it, is written for many rows or with `keeps`. The others are f32.
 */
export function swigluLinearAdd(
  commands: Commands,
  { gateUp, weight, residual, out, activated }: {
    gateUp: Tensor;
    weight: Matrix;
    residual: Tensor;
    out: Tensor;
    activated: Tensor;
  },
  { rows, keeps }: { rows: Rows; keeps: boolean },
): void {
  if (!keeps && rows.maximum <= commands.device.tuning.vectorRows) {
    vectorProduct(commands, { x: gateUp, weight, residual, out }, { rows, input: { kind: "swiglu" } });
    return;
  }
  swiglu(commands, { gateUp, out: activated }, { rows });
  linearAdd(commands, { x: activated, weight, residual, out }, { rows });
}

/**
 * Records gradX = gradOut W. gradOut (rows, N); weight (N, K); gradX (rows, K). All f32.
 *
 * @param partOf As in `linear`.
 * @throws TypeError for a packed weight.
 */
export function linearBackwardInput(
  commands: Commands,
  { gradOut, weight, gradX }: { gradOut: Tensor; weight: Matrix; gradX: Tensor },
  { rows, partOf = rows.maximum }: { rows: Rows; partOf?: number },
): void {
  const [depth, columns] = weight.shape as [number, number];
  const shapes = {
    gradOut: [gradOut, [rows.maximum, depth]],
    gradX: [gradX, [rows.maximum, columns]],
  } as const;
  checkShape("linearBackwardInput", shapes);
  for (const { matrix, start, count } of rowWindows(commands.device, weight)) {
    matmul(commands, { a: columnsFrom(gradOut, start), b: matrix, out: gradX }, {
      rows: rows.maximum,
      columns,
      depth: count,
      aStride: depth,
      bDepthFirst: true,
      accumulate: start > 0,
      counted: { dimension: "rows", rows },
      partOf,
    });
  }
}

/** Records gradWeight += gradOut^T x. gradOut (rows, N); x (rows, K); gradWeight (N, K). All f32. */
export function linearBackwardWeight(
  commands: Commands,
  { gradOut, x, gradWeight }: { gradOut: Tensor; x: Tensor; gradWeight: Tensor },
  { rows }: { rows: Rows },
): void {
  const [outputs, inputs] = gradWeight.shape as [number, number];
  const shapes = { gradOut: [gradOut, [rows.maximum, outputs]], x: [x, [rows.maximum, inputs]] } as const;
  checkShape("linearBackwardWeight", shapes);
  for (const { matrix, start, count } of rowWindows(commands.device, gradWeight)) {
    matmul(commands, { a: columnsFrom(gradOut, start), b: x, out: matrix }, {
      rows: count,
      columns: inputs,
      depth: rows.maximum,
      aStride: outputs,
      aDepthFirst: true,
      bDepthFirst: true,
      accumulate: true,
      counted: { dimension: "depth", rows },
    });
  }
}
