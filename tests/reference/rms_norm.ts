/**
 * Root mean square norm of each row (Zhang and Sennrich 2019, arXiv 1910.07467, equation 4).
 *
 * out = x * rrms * weight with rrms = 1 / sqrt(mean(x^2) + eps);
 * x and out (rows, C), weight (C), rrms (rows).
 */
export function rmsNorm(
  { x, weight }: { x: Float64Array; weight: Float64Array },
  { eps }: { eps: number },
): { out: Float64Array; rrms: Float64Array } {
  const width = weight.length;
  const rows = x.length / width;
  const out = new Float64Array(x.length);
  const rrms = new Float64Array(rows);
  for (let r = 0; r < rows; r++) {
    let squares = 0;
    for (let c = 0; c < width; c++) squares += x[r * width + c]! ** 2;
    rrms[r] = 1 / Math.sqrt(squares / width + eps);
    for (let c = 0; c < width; c++) out[r * width + c] = x[r * width + c]! * rrms[r]! * weight[c]!;
  }
  return { out, rrms };
}

/**
 * Gradients of `rmsNorm`; gradOut and gradX (rows, C), gradWeight (C).
 *
 * With g = gradOut * weight: gradX = rrms * (g - x * rrms^2 * mean(g * x)),
 * gradWeight = sum over rows of gradOut * x * rrms.
 */
export function rmsNormBackward(
  { gradOut, x, weight, rrms }: {
    gradOut: Float64Array;
    x: Float64Array;
    weight: Float64Array;
    rrms: Float64Array;
  },
): { gradX: Float64Array; gradWeight: Float64Array } {
  const width = weight.length;
  const gradX = new Float64Array(x.length);
  const gradWeight = new Float64Array(width);
  for (let r = 0; r < rrms.length; r++) {
    const scale = rrms[r]!;
    let mean = 0;
    for (let c = 0; c < width; c++) {
      const i = r * width + c;
      mean += gradOut[i]! * weight[c]! * x[i]! / width;
      gradWeight[c]! += gradOut[i]! * x[i]! * scale;
    }
    for (let c = 0; c < width; c++) {
      const i = r * width + c;
      gradX[i] = scale * (gradOut[i]! * weight[c]! - x[i]! * scale ** 2 * mean);
    }
  }
  return { gradX, gradWeight };
}
