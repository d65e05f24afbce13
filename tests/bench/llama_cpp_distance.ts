/** How far apart the logits of two programs are, in float64. */

/** Two rows of logits for the same position, the first of them the reference. */
export interface RowDistance {
  /** Whether both have the same likeliest token; of equal ones the lowest counts. */
  readonly agrees: boolean;
  /** KL(reference || other) in nats. */
  readonly divergence: number;
  /** Largest difference of two logits once each row's mean is taken off: a shift of a whole row changes nothing. */
  readonly difference: number;
}

/** Cross-entropy of a token in nats. */
export function crossEntropy(row: Float32Array, token: number): number {
  return logSum(row) - row[token]!;
}

/** Compares rows of equal length; a logit that is not finite makes the numbers so too, and such rows never agree. */
export function compareRows(reference: Float32Array, other: Float32Array): RowDistance {
  const [sumP, sumQ] = [logSum(reference), logSum(other)];
  let divergence = 0;
  let shift = 0;
  reference.forEach((value, i) => {
    const [p, q] = [value - sumP, other[i]! - sumQ];
    divergence += Math.exp(p) * (p - q);
    shift += value - other[i]!;
  });
  shift /= reference.length;
  const difference = reference.reduce(
    (largest, value, i) => Math.max(largest, Math.abs(value - other[i]! - shift)),
    0,
  );
  return {
    agrees: Number.isFinite(sumP + sumQ) && likeliest(reference) === likeliest(other),
    divergence,
    difference,
  };
}

/** Over all positions. */
export interface Agreement {
  readonly positions: number;
  /** Part of the positions with the same likeliest token. */
  readonly topAgreement: number;
  readonly meanDivergence: number;
  readonly medianDivergence: number;
  readonly maxDivergence: number;
  readonly maxDifference: number;
}

/** @param rows At least one. */
export function summarize(rows: readonly RowDistance[]): Agreement {
  const divergences = rows.map(({ divergence }) => divergence).sort((a, b) => a - b);
  const middle = divergences.length / 2;
  return {
    positions: rows.length,
    topAgreement: rows.filter(({ agrees }) => agrees).length / rows.length,
    meanDivergence: mean(divergences),
    medianDivergence: (divergences[Math.ceil(middle) - 1]! + divergences[Math.floor(middle)]!) / 2,
    maxDivergence: Math.max(...divergences),
    maxDifference: Math.max(...rows.map(({ difference }) => difference)),
  };
}

/** @param values At least one. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function likeliest(row: Float32Array): number {
  return row.reduce((best, value, i) => value > row[best]! ? i : best, 0);
}

/** Logarithm of the sum of exponentials. */
function logSum(row: Float32Array): number {
  const largest = row.reduce((most, value) => Math.max(most, value), -Infinity);
  return largest + Math.log(row.reduce((sum, value) => sum + Math.exp(value - largest), 0));
}
