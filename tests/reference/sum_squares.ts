/** sum_i x_i^2. */
export function sumSquares(x: Float64Array): number {
  return x.reduce((sum, value) => sum + value * value, 0);
}
