/** Weight files in memory, for what reads and writes checkpoints. */
import type { ModelConfig } from "../../model/config.ts";
import { encodeNumbers, type NumberFormat, rowBytes } from "../../model/files/number_formats.ts";
import { type ParameterSpec, parameterTable } from "../../model/parameters.ts";
import { fillNormal, uniform } from "../../model/random.ts";
import type { RowRange, WeightEntry, WeightFile } from "../../model/files/weight_file.ts";

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

/** Everything in a weight file. */
export async function contentOf(file: WeightFile): Promise<Map<string, MemoryWeight>> {
  const content = new Map<string, MemoryWeight>();
  for (const [name, { shape, format }] of file.entries) {
    const count = shape.length === 1 ? 1 : shape[0]!;
    content.set(name, { shape, format, bytes: await file.readRows(name, { start: 0, count }) });
  }
  return content;
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

/** All weights of a model, set by a seed: matrices in a format, norms f32. */
export function storedWeights(
  config: ModelConfig,
  { seed, format }: { seed: number; format: NumberFormat },
): Map<string, MemoryWeight> {
  const weights = seededWeights(config, { seed });
  for (const [name, { shape }] of weights) {
    if (shape.length > 1) {
      weights.set(name, { shape, format, bytes: storedMatrix(name, { shape, seed, format }) });
    }
  }
  return weights;
}

function storedMatrix(
  name: string,
  { shape, seed, format }: { shape: readonly number[]; seed: number; format: NumberFormat },
): Uint8Array<ArrayBuffer> {
  const numbers = seededNumbers({ name, shape, kind: "matrix" }, seed);
  switch (format) {
    case "bf16":
      // The upper halves.
      return new Uint8Array(new Uint16Array(numbers.buffer).filter((_, i) => i % 2 === 1).buffer);
    case "f32":
    case "f16":
    case "q8_0":
    case "q4_0":
      return encodeNumbers(format, numbers);
    default: {
      // Bytes of the numbers, as many as there are: blocks of any kind. Scales are halves of f32, or small.
      const bytes = new Uint8Array(numbers.buffer);
      return bytes.slice(0, shape[0]! * rowBytes(format, shape[1]!)).map((byte) => byte & 0x3f);
    }
  }
}
