/** 1 / (1 + exp(-x)); exact limits 0 and 1 where exp overflows or vanishes. */
export function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}
