/** The simplest model of a text: each token by its frequency, whatever came before. */

/**
 * Bits per token of `validation` under the token frequencies of `training`, each count one higher than seen so that
 * nothing is impossible.
 */
export function frequencyBaseline(
  { training, validation }: { training: ArrayLike<number>; validation: ArrayLike<number> },
  { vocabSize }: { vocabSize: number },
): number {
  const counts = new Float64Array(vocabSize).fill(1);
  for (let i = 0; i < training.length; i++) counts[training[i]!]!++;
  let bits = 0;
  for (let i = 0; i < validation.length; i++) {
    bits -= Math.log2(counts[validation[i]!]! / (training.length + vocabSize));
  }
  return bits / validation.length;
}
