import { addScaled, row } from "./rows.ts";

/** out_i = x[indices_i]; x (rows, width), indices (k), out (k, width). */
export function gatherRows(
  { x, indices }: { x: Float64Array; indices: ArrayLike<number> },
  { width }: { width: number },
): Float64Array {
  const out = new Float64Array(indices.length * width);
  for (let i = 0; i < indices.length; i++) out.set(row(x, { index: indices[i]!, width }), i * width);
  return out;
}

/** gradX[indices_i] += gradOut_i, 0 at all other rows; gradOut (k, width), gradX (rows, width). */
export function gatherRowsBackward(
  { gradOut, indices }: { gradOut: Float64Array; indices: ArrayLike<number> },
  { rows, width }: { rows: number; width: number },
): Float64Array {
  const gradX = new Float64Array(rows * width);
  for (let i = 0; i < indices.length; i++) {
    addScaled(row(gradX, { index: indices[i]!, width }), { source: row(gradOut, { index: i, width }) });
  }
  return gradX;
}
