/** Head sizes and the base of the rotation's frequencies. */
export interface RopeSettings {
  readonly heads: number;
  readonly headDim: number;
  readonly theta: number;
}

/**
 * Rotary position embedding in the rotate-half form (Su et al. 2021, arXiv 2104.09864; pairs as in Hugging
 * Face's Llama).
 *
 * Entry i < D/2 is paired with entry i + D/2 and the pair is turned by the angle position * theta^(-2i/D):
 * out_i = x_i cos - x_{i+D/2} sin, out_{i+D/2} = x_{i+D/2} cos + x_i sin;
 * x and out (rows, heads, D), positions (rows).
 */
export function rope(
  { x, positions }: { x: Float64Array; positions: ArrayLike<number> },
  settings: RopeSettings,
): Float64Array {
  return rotate({ x, positions, direction: 1 }, settings);
}

/** The gradient of a rotation is the inverse rotation: gradX = rotation by -angle of gradOut. */
export function ropeBackward(
  { gradOut, positions }: { gradOut: Float64Array; positions: ArrayLike<number> },
  settings: RopeSettings,
): Float64Array {
  return rotate({ x: gradOut, positions, direction: -1 }, settings);
}

function rotate(
  { x, positions, direction }: { x: Float64Array; positions: ArrayLike<number>; direction: 1 | -1 },
  { heads, headDim, theta }: RopeSettings,
): Float64Array {
  const half = headDim / 2;
  const out = new Float64Array(x.length);
  for (let r = 0; r < positions.length; r++) {
    for (let i = 0; i < half; i++) {
      const angle = direction * positions[r]! * theta ** (-2 * i / headDim);
      const cos = Math.cos(angle);
      const sin = Math.sin(angle);
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
