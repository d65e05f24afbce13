/**
 * Spans of sequences that are packed one after the other: (rows, 2), for each row the `[start, end)` of its
 * sequence.
 *
 * A sequence of length 0 has no rows and leaves no trace. Lengths `[2, 0, 1]` give `[0, 2, 0, 2, 2, 3]`.
 */
export function packSpans(lengths: ArrayLike<number>): Int32Array {
  const spans: number[] = [];
  let start = 0;
  for (const length of Array.from(lengths)) {
    for (let i = 0; i < length; i++) spans.push(start, start + length);
    start += length;
  }
  return Int32Array.from(spans);
}
