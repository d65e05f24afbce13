/** Weight files in memory, for what reads and writes checkpoints. */
import type { ModelConfig } from "../../model/config.ts";
import { encodeNumbers } from "../../model/number_formats.ts";
import { type ParameterSpec, parameterTable } from "../../model/parameters.ts";
import { fillNormal, uniform } from "../../model/random.ts";
import type { RowRange, WeightEntry, WeightFile } from "../../model/weight_file.ts";

/** A tensor's bytes with what a file says of it. */
export interface MemoryWeight extends WeightEntry {
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A weight file of given tensors. */
export function memoryWeightFile(weights: ReadonlyMap<string, MemoryWeight>, path = "memory"): WeightFile {
  return {
    path,
    entries: weights,
    others: new Map(),
    readRows(name: string, { start, count }: RowRange): Promise<Uint8Array<ArrayBuffer>> {
      const { shape, bytes } = weights.get(name)!;
      const width = bytes.length / (shape.length === 1 ? 1 : shape[0]!);
      return Promise.resolve(bytes.slice(start * width, (start + count) * width));
    },
    [Symbol.dispose]: () => {},
  };
}

/** Deviations from a weight's usual value, by its kind; a matrix row's product with a normal vector is normal. */
const DEVIATION = { matrix: (columns: number) => columns ** -0.5, norm: () => 0.2, bias: () => 0.02 };

/** f32 numbers of a weight, set by a seed and its name: norms around 1, others around 0. */
export function seededNumbers({ name, shape, kind }: ParameterSpec, seed: number): Float32Array<ArrayBuffer> {
  const numbers = new Float32Array(shape.reduce((product, size) => product * size, 1));
  fillNormal(numbers, { next: uniform(seed, name), scale: DEVIATION[kind](shape.at(-1)!) });
  return kind === "norm" ? numbers.map((value) => 1 + value) : numbers;
}

/** All weights of a model, f32 or f16, set by a seed. */
export function seededWeights(
  config: ModelConfig,
  { seed, format = "f32" }: { seed: number; format?: "f32" | "f16" },
): Map<string, MemoryWeight> {
  return new Map(
    parameterTable(config).map((spec) => {
      const bytes = encodeNumbers(format, seededNumbers(spec, seed));
      return [spec.name, { shape: spec.shape, format, bytes }];
    }),
  );
}
