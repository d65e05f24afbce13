/** Where the tensors of a GGUF file lie. */
import type { GgufHeader } from "./gguf_header.ts";
import { blockLength, type NumberFormat, rowBytes } from "./number_formats.ts";
import type { WeightEntry } from "./weight_file.ts";

/** A tensor whose bytes are known to be in the file. */
export interface PlacedTensor extends WeightEntry {
  /** First byte in the file. */
  readonly begin: number;
}

/** By ggml's names. */
const FORMATS: Readonly<Record<string, NumberFormat>> = {
  F32: "f32",
  F16: "f16",
  BF16: "bf16",
  Q8_0: "q8_0",
  Q4_0: "q4_0",
  Q4_1: "q4_1",
  Q4_K: "q4_k",
  Q6_K: "q6_k",
};

const READABLE = Object.keys(FORMATS).join(", ");

/**
 * The tensors by their names in the file. As llama.cpp demands, they follow each other without gaps other than padding,
 * and the file ends with the last of them: a wrong type, size, offset or end cannot go unseen.
 */
export function placeTensors(
  { tensors, dataStart, alignment }: GgufHeader,
  { size, fail }: { size: number; fail: (text: string) => never },
): Map<string, PlacedTensor> {
  const placed = new Map<string, PlacedTensor>();
  let end = dataStart;
  for (const { name, dimensions, type, offset } of tensors) {
    const format = FORMATS[type] ??
      fail(`tensor "${name}" is ${type}, wanted ${READABLE}; use another file of the model`);
    // Innermost first.
    const shape = dimensions.toReversed();
    const columns = shape.at(-1) ?? 0;
    const isPossible = shape.length <= 2 && shape.every((n) => n > 0) && columns % blockLength(format) === 0;
    if (columns === 0 || !isPossible) {
      fail(`tensor "${name}" of type ${type} has the impossible shape (${shape.join(", ")})`);
    }
    const begin = dataStart + offset;
    const expected = Math.ceil(end / alignment) * alignment;
    if (begin !== expected) {
      fail(
        `the file is damaged: tensor "${name}" begins at byte ${begin}, expected ${expected} after the one before`,
      );
    }
    end = begin + (shape.length === 2 ? shape[0]! : 1) * rowBytes(format, columns);
    placed.set(name, { shape, format, begin });
  }
  if (placed.size === 0) fail("it has no tensors");
  // The last tensor may be padded like the others.
  if (size < end || size > Math.ceil(end / alignment) * alignment) {
    fail(`the file is truncated or damaged: ${size} bytes, its header speaks of ${end}`);
  }
  return placed;
}
