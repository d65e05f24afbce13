import type { Gating } from "../../model/config.ts";
import { dot, row } from "./rows.ts";

/** State x (rows, width), block output z (k, width) for the distinct rows indices (k), gates weights (k). */
export interface ScatterRowsInput {
  readonly x: Float64Array;
  readonly z: Float64Array;
  readonly indices: ArrayLike<number>;
  readonly weights: Float64Array;
}

/** How x_new = a x + b z weighs the two parts at a chosen row with gate w. */
function parts(gating: Gating, w: number): { a: number; b: number } {
  switch (gating) {
    case "weighted":
      return { a: 1, b: w };
    case "additive":
      return { a: 1, b: 1 };
    case "replace":
      return { a: 0, b: 1 };
    case "delta":
      return { a: 1 - w, b: w };
  }
}

/**
 * Writes a recursion step's result back into the state; out (rows, width), rows without an index are copied.
 *
 * At row indices_i: weighted x + w z | additive x + z | replace z | delta x + w (z - x).
 * The first is the update of the Mixture-of-Recursions paper (arXiv 2507.10524), which adds the block's
 * output, its inner residuals included, to the state.
 */
export function scatterRows(
  { x, z, indices, weights }: ScatterRowsInput,
  { gating, width }: { gating: Gating; width: number },
): Float64Array {
  const out = x.slice();
  for (let i = 0; i < indices.length; i++) {
    const { a, b } = parts(gating, weights[i]!);
    for (let c = 0; c < width; c++) {
      const at = indices[i]! * width + c;
      out[at] = a * x[at]! + b * z[i * width + c]!;
    }
  }
  return out;
}

/**
 * Gradients of `scatterRows`; gradX (rows, width), gradZ (k, width), gradWeights (k).
 *
 * With out = a x + b z: gradX = a gradOut, gradZ = b gradOut;
 * gradWeights = gradOut . z (weighted), gradOut . (z - x) (delta) or 0.
 */
export function scatterRowsBackward(
  { gradOut, x, z, indices, weights }: ScatterRowsInput & { readonly gradOut: Float64Array },
  { gating, width }: { gating: Gating; width: number },
): { gradX: Float64Array; gradZ: Float64Array; gradWeights: Float64Array } {
  const gradX = gradOut.slice();
  const gradZ = new Float64Array(z.length);
  const gradWeights = new Float64Array(weights.length);
  for (let i = 0; i < indices.length; i++) {
    const { a, b } = parts(gating, weights[i]!);
    const at = { index: indices[i]!, width };
    const gradient = row(gradOut, at);
    for (let c = 0; c < width; c++) {
      gradX[at.index * width + c] = a * gradient[c]!;
      gradZ[i * width + c] = b * gradient[c]!;
    }
    if (gating === "additive" || gating === "replace") continue;
    gradWeights[i] = dot(gradient, row(z, { index: i, width }));
    if (gating === "delta") gradWeights[i]! -= dot(gradient, row(x, at));
  }
  return { gradX, gradZ, gradWeights };
}
