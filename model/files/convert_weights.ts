/** Weights on their way from one file into another: which format each gets there, and its rows in that format. */
import { planAllocator } from "../../gpu/memory.ts";
import type { ModelConfig } from "../config.ts";
import { planWeights } from "../load_weights.ts";
import { convertNumbers } from "./convert_numbers.ts";
import type { EncodedFormat, NumberFormat } from "./number_formats.ts";
import { type ParameterSpec, parameterTable } from "../parameters.ts";
import { quantizationPlan, reducibleMatrices } from "./quantize.ts";
import { storedFormat, storedRows, type WantedWeight, type WeightFile } from "./weight_file.ts";

/** What is written, as far as it goes. */
export interface ConversionProgress {
  /** The tensor whose turn it is, and how many were before it. */
  readonly name: string;
  readonly index: number;
  readonly count: number;
}

/**
 * The format of each weight in the new file, by its name.
 *
 * @param dtype That of matrices, blocks where their rows are whole blocks; all else is f32 then. Null: as they are stored.
 * @param canKeep Whether the new file can hold a weight as it is stored; if not, it becomes f32.
 * @throws CheckpointError for a missing weight, another shape, or one that the model has no place for.
 */
export function convertedFormats<Kept extends NumberFormat>(
  config: ModelConfig,
  { file, dtype, canKeep }: {
    file: WeightFile;
    dtype: EncodedFormat | null;
    canKeep: (format: NumberFormat, spec: ParameterSpec) => format is Kept;
  },
): Map<string, Kept | EncodedFormat> {
  planWeights(planAllocator(), { config, file, choice: "auto" });
  if (dtype === "f16") {
    const reducible = reducibleMatrices(config);
    return new Map(parameterTable(config).map(({ name }) => [name, reducible.has(name) ? "f16" : "f32"]));
  }
  if (dtype !== null && dtype !== "f32") {
    return new Map(quantizationPlan(config, { format: dtype }).map(({ name, format }) => [name, format]));
  }
  return new Map(
    parameterTable(config).map((spec) => {
      const stored = storedFormat(file, spec);
      return [spec.name, dtype === null && canKeep(stored, spec) ? stored : "f32"];
    }),
  );
}

/** A weight's rows in another format, some at a time; throws as `storedRows` and `convertNumbers`. */
export async function* convertedRows(
  file: WeightFile,
  { weight, format }: { weight: WantedWeight; format: NumberFormat },
): AsyncGenerator<Uint8Array> {
  for await (const { format: from, bytes } of storedRows(file, weight)) {
    yield convertNumbers(bytes, { name: weight.name, from, to: format });
  }
}

/** Tensors to write that say when their turn has come. */
export function announced<T extends { readonly name: string; readonly data: () => unknown }>(
  tensors: readonly T[],
  onWeight: (progress: ConversionProgress) => void = () => {},
): T[] {
  return tensors.map((tensor, index) => ({
    ...tensor,
    data: () => {
      onWeight({ name: tensor.name, index, count: tensors.length });
      return tensor.data();
    },
  }));
}
