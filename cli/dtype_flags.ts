/** The flags that say how weights, and keys and values, are kept on the device. */
import { ValidationError } from "@cliffy/command";
import { KV_DTYPES, type KvDtype } from "../gpu/kernels/attention_heads.ts";
import { MATRIX_FORMATS, type MatrixChoice } from "../model/load_weights.ts";

export const DTYPE_HELP = `Keep weights as ${
  MATRIX_FORMATS.join(", ")
}; as the file has them, or f32 where it has another format, unless given.`;
export const KV_DTYPE_HELP = `Keep keys and values as ${KV_DTYPES.join(" or ")}.`;

/**
 * The format that a flag names.
 *
 * @throws ValidationError for a name that is not known.
 */
export function formatFlag<T extends string>(
  name: string,
  { flag, known }: { flag: string; known: readonly T[] },
): T {
  const format = known.find((other) => other === name);
  if (format) return format;
  throw new ValidationError(`${flag} is "${name}", wanted ${known.join(", ")}`);
}

/** `--dtype` of what computes; throws as `formatFlag`. */
export function matrixChoice(dtype: string | undefined): MatrixChoice {
  return dtype === undefined ? "auto" : formatFlag(dtype, { flag: "--dtype", known: MATRIX_FORMATS });
}

/** `--dtype` of what writes files, null if it is not given; throws as `formatFlag`. */
export function storedDtype<T extends string>(dtype: string | undefined, known: readonly T[]): T | null {
  return dtype === undefined ? null : formatFlag(dtype, { flag: "--dtype", known });
}

/** `--kv-dtype`; throws as `formatFlag`. */
export function kvDtypeFlag(dtype: string): KvDtype {
  return formatFlag(dtype, { flag: "--kv-dtype", known: KV_DTYPES });
}
