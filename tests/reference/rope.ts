import type { Llama3RopeScaling, RopeScaling, YarnRopeScaling } from "../../model/config.ts";

/** Head sizes, the base of the rotation's frequencies and how they are scaled. */
export interface RopeSettings {
  readonly heads: number;
  readonly headDim: number;
  readonly theta: number;
  readonly scaling?: RopeScaling | null;
}

/**
 * Rotary position embedding in the rotate-half form (Su et al. 2021, arXiv 2104.09864; pairs as in Hugging
 * Face's Llama).
 *
 * Entry i < D/2 is paired with entry i + D/2 and the pair is turned by the angle position * frequency_i:
 * out_i = x_i cos - x_{i+D/2} sin, out_{i+D/2} = x_{i+D/2} cos + x_i sin, both times the scaling's attention factor;
 * x and out (rows, heads, D), positions (rows).
 */
export function rope(
  { x, positions }: { x: Float64Array; positions: ArrayLike<number> },
  settings: RopeSettings,
): Float64Array {
  return rotate({ x, positions, direction: 1 }, settings);
}

/** The gradient of a rotation is the inverse rotation: gradX = rotation by -angle of gradOut, times the same factor. */
export function ropeBackward(
  { gradOut, positions }: { gradOut: Float64Array; positions: ArrayLike<number> },
  settings: RopeSettings,
): Float64Array {
  return rotate({ x: gradOut, positions, direction: -1 }, settings);
}

function rotate(
  { x, positions, direction }: { x: Float64Array; positions: ArrayLike<number>; direction: 1 | -1 },
  settings: RopeSettings,
): Float64Array {
  const { heads, headDim, scaling } = settings;
  const half = headDim / 2;
  const magnitude = scaling?.kind === "yarn" ? scaling.attentionFactor : 1;
  const frequencies = ropeFrequencies(settings);
  const out = new Float64Array(x.length);
  for (let r = 0; r < positions.length; r++) {
    for (let i = 0; i < half; i++) {
      const angle = direction * positions[r]! * frequencies[i]!;
      const cos = magnitude * Math.cos(angle);
      const sin = magnitude * Math.sin(angle);
      for (let h = 0; h < heads; h++) {
        const first = (r * heads + h) * headDim + i;
        const second = first + half;
        out[first] = x[first]! * cos - x[second]! * sin;
        out[second] = x[second]! * cos + x[first]! * sin;
      }
    }
  }
  return out;
}

/** Angles per position, (D/2): theta^(-2i/D), scaled. */
export function ropeFrequencies(
  { headDim, theta, scaling = null }: Omit<RopeSettings, "heads">,
): number[] {
  const plain = Array.from({ length: headDim / 2 }, (_, i) => theta ** (-2 * i / headDim));
  switch (scaling?.kind) {
    case undefined:
      return plain;
    case "linear":
      return plain.map((frequency) => frequency / scaling.factor);
    case "factors":
      return plain.map((frequency, i) => frequency / scaling.factors[i]!);
    case "llama3":
      return plain.map((frequency) => llama3Frequency(frequency, scaling));
    case "yarn":
      return yarnFrequencies(plain, { headDim, theta, scaling });
  }
}

/** By wavelength: short ones stay, long ones are stretched, those between are a mean of both. */
function llama3Frequency(frequency: number, scaling: Llama3RopeScaling): number {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings: original } = scaling;
  const wavelength = 2 * Math.PI / frequency;
  if (wavelength < original / highFreqFactor) return frequency;
  if (wavelength > original / lowFreqFactor) return frequency / factor;
  const smooth = (original / wavelength - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

/** A ramp over the pairs from frequencies that stay to frequencies that are stretched. */
function yarnFrequencies(
  plain: readonly number[],
  { headDim, theta, scaling }: { headDim: number; theta: number; scaling: YarnRopeScaling },
): number[] {
  const { factor, betaFast, betaSlow, originalMaxPositionEmbeddings: original, truncate } = scaling;
  const [fast, slow] = [betaFast, betaSlow].map((turns) =>
    headDim / 2 * Math.log(original / (2 * Math.PI * turns)) / Math.log(theta)
  );
  const start = Math.max(0, truncate ? Math.floor(fast!) : fast!);
  let end = Math.min(headDim - 1, truncate ? Math.ceil(slow!) : slow!);
  if (end === start) end += 0.001;
  return plain.map((frequency, i) => {
    const stretched = Math.max(0, Math.min(1, (i - start) / (end - start)));
    return frequency / factor * stretched + frequency * (1 - stretched);
  });
}
