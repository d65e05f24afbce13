import { addScaled, dot, row } from "./rows.ts";

/** Sizes of a linear map: weight is (outFeatures, inFeatures), as PyTorch stores it. */
export interface LinearSizes {
  readonly inFeatures: number;
  readonly outFeatures: number;
}

/** out = x W^T; x (rows, inFeatures), weight (outFeatures, inFeatures), out (rows, outFeatures). */
export function linear(
  { x, weight }: { x: Float64Array; weight: Float64Array },
  { inFeatures, outFeatures }: LinearSizes,
): Float64Array {
  const rows = x.length / inFeatures;
  const out = new Float64Array(rows * outFeatures);
  for (let r = 0; r < rows; r++) {
    const input = row(x, { index: r, width: inFeatures });
    for (let o = 0; o < outFeatures; o++) {
      out[r * outFeatures + o] = dot(row(weight, { index: o, width: inFeatures }), input);
    }
  }
  return out;
}

/** gradX = gradOut W; gradOut (rows, outFeatures), gradX (rows, inFeatures). */
export function linearInputGradient(
  { gradOut, weight }: { gradOut: Float64Array; weight: Float64Array },
  { inFeatures, outFeatures }: LinearSizes,
): Float64Array {
  const rows = gradOut.length / outFeatures;
  const gradX = new Float64Array(rows * inFeatures);
  for (let r = 0; r < rows; r++) {
    const target = row(gradX, { index: r, width: inFeatures });
    for (let o = 0; o < outFeatures; o++) {
      const source = row(weight, { index: o, width: inFeatures });
      addScaled(target, { source, scale: gradOut[r * outFeatures + o]! });
    }
  }
  return gradX;
}

/**
 * gradW = gradOut^T x; gradOut (rows, outFeatures), x (rows, inFeatures), gradW (outFeatures, inFeatures).
 */
export function linearWeightGradient(
  { gradOut, x }: { gradOut: Float64Array; x: Float64Array },
  { inFeatures, outFeatures }: LinearSizes,
): Float64Array {
  const rows = gradOut.length / outFeatures;
  const gradWeight = new Float64Array(outFeatures * inFeatures);
  for (let r = 0; r < rows; r++) {
    const source = row(x, { index: r, width: inFeatures });
    for (let o = 0; o < outFeatures; o++) {
      const target = row(gradWeight, { index: o, width: inFeatures });
      addScaled(target, { source, scale: gradOut[r * outFeatures + o]! });
    }
  }
  return gradWeight;
}
