/** What RoPE scaling does: a divisor for each frequency, and a factor of the rotated queries and keys. */
import type { Llama3RopeScaling, ModelConfig, YarnRopeScaling } from "./config.ts";

/** Changes to a plain rotation by position * theta^(-2i / D). */
export interface RopeScales {
  /** (D / 2): the frequency of each pair is divided by its own. */
  readonly divisors: Float64Array;
  /** Multiplies cosines and sines. */
  readonly attentionFactor: number;
}

/**
 * The scales of a model; ones where nothing is scaled. Formulas as in Hugging Face's `modeling_rope_utils`, in float64.
 */
export function ropeScales(
  { headDim, ropeTheta, ropeScaling: scaling }: Pick<ModelConfig, "headDim" | "ropeTheta" | "ropeScaling">,
): RopeScales {
  const divisors = new Float64Array(headDim / 2).fill(1);
  switch (scaling?.kind) {
    case "linear":
      divisors.fill(scaling.factor);
      break;
    case "factors":
      divisors.set(scaling.factors);
      break;
    case "llama3":
    case "yarn": {
      const keptShare = scaling.kind === "llama3"
        ? llama3KeptShare(scaling, { headDim, theta: ropeTheta })
        : yarnKeptShare(scaling, { headDim, theta: ropeTheta });
      divisors.forEach((_, i) => {
        const kept = keptShare(i);
        divisors[i] = 1 / (kept + (1 - kept) / scaling.factor);
      });
    }
  }
  return { divisors, attentionFactor: scaling?.kind === "yarn" ? scaling.attentionFactor : 1 };
}

/** How much of frequency i stays as it is, from 0 to 1; the rest is divided by the factor. */
type KeptShare = (i: number) => number;

/** A line from 0 at `lowFreqFactor` to 1 at `highFreqFactor` over the turns in the original positions. */
function llama3KeptShare(
  { lowFreqFactor: low, highFreqFactor: high, originalMaxPositionEmbeddings }: Llama3RopeScaling,
  { headDim, theta }: { headDim: number; theta: number },
): KeptShare {
  return (i) => {
    const turns = originalMaxPositionEmbeddings * theta ** (-2 * i / headDim) / (2 * Math.PI);
    return clamp((turns - low) / (high - low));
  };
}

/** A line over i, from 1 where a frequency makes `betaFast` turns in the original positions to 0 at `betaSlow`. */
function yarnKeptShare(
  { betaFast, betaSlow, truncate, originalMaxPositionEmbeddings }: YarnRopeScaling,
  { headDim, theta }: { headDim: number; theta: number },
): KeptShare {
  /** The i, with its fraction, whose frequency makes this many turns. */
  const place = (turns: number): number =>
    headDim * Math.log(originalMaxPositionEmbeddings / (turns * 2 * Math.PI)) / (2 * Math.log(theta));
  const [fast, slow] = [place(betaFast), place(betaSlow)];
  const low = Math.max(truncate ? Math.floor(fast) : fast, 0);
  const high = Math.min(truncate ? Math.ceil(slow) : slow, headDim - 1);
  // Equal ends would divide by zero; the library widens them by as much.
  const width = high === low ? 0.001 : high - low;
  return (i) => 1 - clamp((i - low) / width);
}

function clamp(share: number): number {
  return Math.min(1, Math.max(0, share));
}
