/** Row `index` of a matrix whose rows have `width` entries: a view, so that writes reach the matrix. */
export function row(matrix: Float64Array, { index, width }: { index: number; width: number }): Float64Array {
  return matrix.subarray(index * width, (index + 1) * width);
}

/** sum_i a_i b_i. */
export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** target += scale * source, in place. */
export function addScaled(
  target: Float64Array,
  { source, scale = 1 }: { source: Float64Array; scale?: number },
): void {
  for (let i = 0; i < target.length; i++) target[i]! += scale * source[i]!;
}
