import type { SlotSampling } from "../../gpu/kernels/sample.ts";

/** A text's next token: logits (V), the tokens seen so far, and the position of the last one. */
export interface SampleInput {
  readonly logits: Float64Array;
  readonly seen: ReadonlySet<number>;
  readonly position: number;
}

/** pcg3d of Jarzynski & Olano 2020, "Hash Functions for GPU Rendering"; 32 bits. */
function hash(...input: readonly [id: number, position: number, seed: number]): number {
  let [x, y, z] = input.map((value) => Math.imul(value, 1664525) + 1013904223) as [number, number, number];
  x += Math.imul(y, z);
  y += Math.imul(z, x);
  z += Math.imul(x, y);
  [x, y, z] = [x, y, z].map((value) => value ^ (value >>> 16)) as [number, number, number];
  return (x + Math.imul(y, z)) >>> 0;
}

/** A draw from the Gumbel distribution: -log(E), E = -log(1 - u) with u uniform in (0, 1). */
function gumbel(bits: number): number {
  return -Math.log(-Math.log1p(-(bits + 0.5) / 2 ** 32));
}

/** l: logits after the repeat penalty. */
function penalise({ logits, seen }: SampleInput, { repeatPenalty }: SlotSampling): Float64Array {
  return logits.map((logit, id) => {
    if (!seen.has(id)) return logit;
    return logit > 0 ? logit / repeatPenalty : logit * repeatPenalty;
  });
}

/** The least l that top-k, top-p and min-p all keep; ties with it are kept. */
function cutoffOf(penalised: Float64Array, { topK, topP, minP }: SlotSampling): number {
  const sorted = penalised.toSorted().reverse();
  const largest = sorted[0]!;
  let cutoff = -Infinity;
  if (topK > 0 && topK < sorted.length) cutoff = sorted[topK - 1]!;
  if (topP < 1) {
    const likeliest = sorted.filter((l) => l >= cutoff);
    const weights = likeliest.map((l) => Math.exp(l - largest));
    const wanted = topP * weights.reduce((sum, weight) => sum + weight, 0);
    let sum = 0;
    const last = weights.findIndex((weight) => (sum += weight) >= wanted);
    cutoff = likeliest.at(last)!;
  }
  return minP > 0 ? Math.max(cutoff, largest + Math.log(minP)) : cutoff;
}

/**
 * What the tokens compete with (V): l_v / temperature - log(E_v) with E_v ~ Exp(1) a hash of seed, position and v, or
 * l_v for temperature 0; -Infinity where a filter drops the token. Their argmax is a draw from softmax(l / temperature)
 * over the kept (Maddison et al. 2014, "A* Sampling").
 */
export function sampleScores(input: SampleInput, sampling: SlotSampling): Float64Array {
  const { temperature, seed } = sampling;
  const penalised = penalise(input, sampling);
  if (temperature === 0) return penalised;
  const largest = penalised.reduce((a, b) => Math.max(a, b));
  const cutoff = cutoffOf(penalised, sampling);
  return penalised.map((l, id) =>
    l < cutoff ? -Infinity : (l - largest) / temperature + gumbel(hash(id, input.position, seed))
  );
}

/** log softmax(logits)_id, in nats. */
export function logProbability(logits: Float64Array, id: number): number {
  const largest = logits.reduce((a, b) => Math.max(a, b));
  return logits[id]! - largest -
    Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0));
}
