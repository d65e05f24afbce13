/** What kernels that read rows of weights are told of their format: the counterpart of packed_weights.wgsl. */
import { isPacked, type Matrix, type PackedFormat, packedRow } from "../packed_matrix.ts";

/** Formats of a weight matrix. */
export type WeightFormat = "f32" | PackedFormat;

/** Values of FORMAT in the file. */
const FORMATS: Readonly<Record<WeightFormat, number>> = { f32: 0, f16: 1, q8_0: 2, q4_0: 3 };

export function formatOf(matrix: Matrix): WeightFormat {
  return isPacked(matrix) ? matrix.format : "f32";
}

/** The constant of the kernels that read a matrix. */
export function formatConstant(matrix: Matrix): { readonly FORMAT: number } {
  return { FORMAT: FORMATS[formatOf(matrix)] };
}

/** Words of a row of a matrix, and how many of them are scales. */
export function rowLayout(matrix: Matrix): { readonly words: number; readonly scaleWords: number } {
  const columns = matrix.shape[1]!;
  return isPacked(matrix) ? packedRow(matrix.format, columns) : { words: columns, scaleWords: 0 };
}
