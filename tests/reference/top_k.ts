/**
 * Expert choice in training: each sequence keeps its k candidates with the largest logit, ties to the lower
 * index.
 *
 * @param logits (B, n), the candidates of each sequence in ascending token order
 * @returns (B, k) indices into the flat logits, ascending within a sequence
 * @throws RangeError if k is larger than n
 */
export function topK(
  { logits }: { logits: Float64Array },
  { candidates, k }: { candidates: number; k: number },
): Int32Array {
  if (k > candidates) throw new RangeError(`Cannot choose ${k} of ${candidates} candidates`);
  const chosen: number[] = [];
  for (let start = 0; start < logits.length; start += candidates) {
    const order = Array.from({ length: candidates }, (_, slot) => start + slot);
    order.sort((a, b) => logits[b]! - logits[a]! || a - b);
    chosen.push(...order.slice(0, k).sort((a, b) => a - b));
  }
  return Int32Array.from(chosen);
}
