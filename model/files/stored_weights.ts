/** How a model's weights lie in its file: formats and bytes, without reading them. */
import { elementCount } from "../../gpu/tensor.ts";
import type { ModelConfig } from "../config.ts";
import { type NumberFormat, rowBytes } from "./number_formats.ts";
import { parameterTable } from "../parameters.ts";
import { storedFormat, type WantedWeight, type WeightFile } from "./weight_file.ts";

/** A weight of a model as its file has it. */
export interface StoredWeight extends WantedWeight {
  readonly format: NumberFormat;
  readonly bytes: number;
}

/**
 * The weights that a model has, each once, in the order of its layers.
 *
 * @throws CheckpointError for one that is missing or has another shape.
 */
export function storedWeights(config: ModelConfig, file: WeightFile): StoredWeight[] {
  return parameterTable(config).map(({ name, shape }) => {
    const format = storedFormat(file, { name, shape });
    const rows = shape.length === 1 ? 1 : shape[0]!;
    return { name, shape, format, bytes: rows * rowBytes(format, shape.at(-1)!) };
  });
}

/** Numbers in each format, the most frequent first. */
export function numbersByFormat(weights: readonly StoredWeight[]): [NumberFormat, number][] {
  const counts = new Map<NumberFormat, number>();
  for (const { format, shape } of weights) {
    counts.set(format, (counts.get(format) ?? 0) + elementCount(shape));
  }
  return [...counts].sort(([, a], [, b]) => b - a);
}
