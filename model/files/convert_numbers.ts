/** Numbers of a weight in another format. */
import { decodeNumbers, type EncodedFormat, encodeNumbers, type NumberFormat } from "./number_formats.ts";
import { CheckpointError } from "./safetensors.ts";

/**
 * Numbers of a weight in a format.
 *
 * @throws CheckpointError for those beyond its range.
 */
export function encodeWeight(
  { name, format }: { name: string; format: EncodedFormat },
  values: Float32Array,
): Uint8Array<ArrayBuffer> {
  try {
    return encodeNumbers(format, values);
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    throw new CheckpointError(`Cannot convert tensor "${name}": ${cause.message}`, { cause });
  }
}

/**
 * Stored numbers of a weight in another format: bytes as they are if it is theirs.
 *
 * @throws CheckpointError for numbers beyond its range.
 */
export function convertNumbers(
  bytes: Uint8Array<ArrayBuffer>,
  { name, from, to }: { name: string; from: NumberFormat; to: NumberFormat },
): Uint8Array<ArrayBuffer> {
  if (from === to) return bytes;
  // Formats that cannot be encoded are kept, if anything.
  return encodeWeight({ name, format: to as EncodedFormat }, decodeNumbers(from, bytes));
}
