/** The constant that tells kernels the format of weights: the counterpart of packed_weights.wgsl. */
import { isPacked, type Matrix } from "../packed_matrix.ts";

/** Values of FORMAT in the file. */
const FORMATS = { f32: 0, f16: 1, q8_0: 2, q4_0: 3 } as const;

export function formatConstant(matrix: Matrix): { readonly FORMAT: number } {
  return { FORMAT: FORMATS[isPacked(matrix) ? matrix.format : "f32"] };
}
