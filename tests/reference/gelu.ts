/** Where the series of erf hands over to the continued fraction of erfc, which converges faster the larger x is. */
const SERIES_END = 3;

/** Levels of the continued fraction: all digits of float64 from `SERIES_END` on. */
const FRACTION_LEVELS = 60;

/**
 * 1 - erf(x), good to 1e-14.
 *
 * Below 3, erf(x) = 2 / sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (1 * 3 * ... * (2n+1)), whose terms are all of one sign
 * (Abramowitz & Stegun 1964, 7.1.6); from 3 on, the continued fraction of erfc (there 7.1.14).
 */
export function erfc(x: number): number {
  if (x < 0) return 2 - erfc(-x);
  const bell = Math.exp(-x * x) / Math.sqrt(Math.PI);
  if (x >= SERIES_END) {
    let denominator = x;
    for (let level = FRACTION_LEVELS; level > 0; level--) denominator = x + level / 2 / denominator;
    return bell / denominator;
  }
  let term = x;
  let sum = x;
  for (let n = 1; term > sum * Number.EPSILON; n++) {
    term *= 2 * x * x / (2 * n + 1);
    sum += term;
  }
  return 1 - 2 * bell * sum;
}

/** The standard normal distribution, P(x) = (1 + erf(x / sqrt(2))) / 2. */
function distribution(x: number): number {
  return erfc(-x / Math.SQRT2) / 2;
}

/** out = s * P(s), s = scale * x (Hendrycks & Gimpel 2016, arXiv 1606.08415, the exact form); x, out (n). */
export function gelu({ x }: { x: Float64Array }, { scale }: { scale: number }): Float64Array {
  return x.map((value) => scale * value * distribution(scale * value));
}

/** Gradient of `gelu`: gradX = gradOut * scale * (P(s) + s * Z(s)), Z(s) = exp(-s^2 / 2) / sqrt(2 pi); all (n). */
export function geluBackward(
  { gradOut, x }: { gradOut: Float64Array; x: Float64Array },
  { scale }: { scale: number },
): Float64Array {
  return x.map((value, i) => {
    const s = scale * value;
    const slope = Math.exp(-s * s / 2) / Math.sqrt(2 * Math.PI);
    return gradOut[i]! * scale * (distribution(s) + s * slope);
  });
}
