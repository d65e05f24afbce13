/** The flags that say how weights, and keys and values, are kept on the device. */
import { ValidationError } from "@cliffy/command";
import { KV_DTYPES, type KvDtype } from "../gpu/kernels/attention_heads.ts";
import { MATRIX_FORMATS, type MatrixChoice } from "../model/load_weights.ts";

export const DTYPE_HELP = `Keep weights as ${
  MATRIX_FORMATS.join(", ")
}; as the file has them, or f32 where it has another format, unless given.`;
export const KV_DTYPE_HELP = `Keep keys and values as ${KV_DTYPES.join(" or ")}.`;

/** @throws ValidationError for another value than the formats of matrices. */
export function matrixChoice(dtype: string | undefined): MatrixChoice {
  if (dtype === undefined) return "auto";
  const format = MATRIX_FORMATS.find((known) => known === dtype);
  if (format) return format;
  throw new ValidationError(`--dtype is "${dtype}", wanted ${MATRIX_FORMATS.join(", ")}`);
}

/** @throws ValidationError for another value than the formats of caches. */
export function kvDtypeFlag(flag: string): KvDtype {
  const dtype = KV_DTYPES.find((known) => known === flag);
  if (dtype) return dtype;
  throw new ValidationError(`--kv-dtype is "${flag}", wanted ${KV_DTYPES.join(" or ")}`);
}
