import { row } from "./rows.ts";

/** log softmax(logits)_v for every column, shifted by the largest logit so that exp cannot overflow. */
function logSoftmax(logits: Float64Array): Float64Array {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
  return logits.map((logit) => logit - largest - Math.log(sum));
}

/** KL(P || Q) = sum_v p_v (log p_v - log q_v), in nats, of logarithms of probabilities. */
function klDivergence(logP: Float64Array, logQ: Float64Array): number {
  return logP.reduce((sum, value, v) => sum + Math.exp(value) * (value - logQ[v]!), 0);
}

/** Index of the largest logit, of equals the lowest. */
function likeliest(logits: Float64Array): number {
  return logits.indexOf(logits.reduce((a, b) => Math.max(a, b), -Infinity));
}

/**
 * For each row, KL(softmax(reference) || softmax(logits)), and 1 where both have the same largest logit, ties to the
 * lowest index, else 0.
 *
 * @param reference, logits (rows, stride) of which the first V columns count; stride is V unless told
 */
export function divergence(
  { reference, logits }: { reference: Float64Array; logits: Float64Array },
  { vocabSize, stride = vocabSize }: { vocabSize: number; stride?: number },
): { divergences: Float64Array; agreements: Float64Array } {
  const rows = logits.length / stride;
  const divergences = new Float64Array(rows);
  const agreements = new Float64Array(rows);
  for (let index = 0; index < rows; index++) {
    const p = row(reference, { index, width: stride }).subarray(0, vocabSize);
    const q = row(logits, { index, width: stride }).subarray(0, vocabSize);
    divergences[index] = klDivergence(logSoftmax(p), logSoftmax(q));
    agreements[index] = likeliest(p) === likeliest(q) ? 1 : 0;
  }
  return { divergences, agreements };
}
