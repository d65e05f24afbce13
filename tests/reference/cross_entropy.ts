import { row } from "./rows.ts";

/** Logits (rows, stride) of which the first V columns count, and the wanted column of each row (rows). */
export interface CrossEntropyInput {
  readonly logits: Float64Array;
  readonly targets: ArrayLike<number>;
}

/** V, and the distance between rows where they are padded (default V). */
export interface CrossEntropySizes {
  readonly vocabSize: number;
  readonly stride?: number;
}

/** log sum_v exp(values_v), shifted by the largest value so that exp cannot overflow. */
function logSumExp(values: Float64Array): number {
  const largest = values.reduce((a, b) => Math.max(a, b), -Infinity);
  return largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
}

/** losses_r = logsumexp(logits_r) - logits_r[targets_r], in nats; (rows). */
export function crossEntropy(
  { logits, targets }: CrossEntropyInput,
  { vocabSize, stride = vocabSize }: CrossEntropySizes,
): Float64Array {
  return Float64Array.from(targets, (target, r) => {
    const values = row(logits, { index: r, width: stride }).subarray(0, vocabSize);
    return logSumExp(values) - values[target]!;
  });
}

/**
 * Gradient of scale * mean(losses): gradLogits_rv = (softmax(logits_r)_v - [v = targets_r]) * scale / rows.
 *
 * gradLogits (rows, stride), 0 in the padding columns.
 */
export function crossEntropyBackward(
  { logits, targets }: CrossEntropyInput,
  { vocabSize, stride = vocabSize, scale = 1 }: CrossEntropySizes & { readonly scale?: number },
): Float64Array {
  const gradLogits = new Float64Array(logits.length);
  for (let r = 0; r < targets.length; r++) {
    const values = row(logits, { index: r, width: stride }).subarray(0, vocabSize);
    const normalizer = logSumExp(values);
    for (let v = 0; v < vocabSize; v++) {
      const target = v === targets[r] ? 1 : 0;
      gradLogits[r * stride + v] = (Math.exp(values[v]! - normalizer) - target) * scale / targets.length;
    }
  }
  return gradLogits;
}
