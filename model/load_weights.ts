/**
 * From a file to the device: every matrix into a buffer of its own, some rows at a time, so that the model never stands in
 * memory twice. For running a model; training keeps its weights in one flat array (parameter_layout.ts).
 */
import type { GpuDevice } from "../gpu/device.ts";
import type { Allocator } from "../gpu/memory.ts";
import {
  BLOCK_LENGTH,
  createPackedMatrix,
  isPacked,
  type Matrix,
  PACKED_FORMATS,
  PackedWriter,
} from "../gpu/packed_matrix.ts";
import { createTensor, elementCount, type Tensor, viewTensor, writeTensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { arrangeWeights, type ModelWeights } from "./model_weights.ts";
import { convertNumbers } from "./files/convert_numbers.ts";
import { decodeNumbers } from "./files/number_formats.ts";
import { parameterTable } from "./parameters.ts";
import { CheckpointError } from "./files/safetensors.ts";
import {
  storedFormat,
  type StoredRows,
  storedRows,
  type WantedWeight,
  type WeightFile,
} from "./files/weight_file.ts";

/** Formats of matrices on the device. */
export const MATRIX_FORMATS = ["f32", ...PACKED_FORMATS] as const;
export type MatrixFormat = typeof MATRIX_FORMATS[number];

/** How matrices are kept: as the file has them where products can read that, f32 otherwise; or in one format. */
export type MatrixChoice = "auto" | MatrixFormat;

/** How the matrices of a model are kept. */
export interface WeightChoices {
  readonly choice: MatrixChoice;
  /** Of embedding and head; `choice` unless given. */
  readonly embeddingChoice?: MatrixChoice | undefined;
}

/** A matrix and the weights that fill it, one below the other. */
interface MatrixPlan {
  readonly matrix: Matrix;
  readonly parts: readonly WantedWeight[];
}

/** Weights on the device that have not been filled yet. */
export interface PlannedWeights {
  readonly weights: ModelWeights;
  readonly matrices: readonly MatrixPlan[];
  readonly tensors: readonly { readonly tensor: Tensor; readonly weight: WantedWeight }[];
}

/**
 * Makes room for a model's weights. Norms and routers are f32 always, and so are matrices whose rows are not whole blocks
 * of 32 numbers. With `planAllocator` it only counts the bytes.
 *
 * @throws CheckpointError for a missing weight, another shape or one that the model has no place for; MemoryError when it
 * does not fit.
 */
export function planWeights(
  device: Allocator,
  { config, file, choice, embeddingChoice = choice }: WeightChoices & {
    config: ModelConfig;
    file: WeightFile;
  },
): PlannedWeights {
  const wanted = new Map(parameterTable(config).map(({ name, shape }) => [name, { name, shape }]));
  checkExtraWeights(config, { file, wanted });
  const matrices: MatrixPlan[] = [];
  const tensors: { tensor: Tensor; weight: WantedWeight }[] = [];
  const weights = arrangeWeights<Matrix>(config, {
    matrix(names, shape): Matrix {
      const parts = names.map((name) => wanted.get(name)!);
      const isEmbedding = !names[0]!.startsWith("model.layers.");
      const format = matrixFormat(isEmbedding ? embeddingChoice : choice, { file, parts, columns: shape[1] });
      const label = names[0]!;
      const matrix = format === "f32"
        ? createTensor(device, { shape, label })
        : createPackedMatrix(device, { format, shape, label });
      matrices.push({ matrix, parts });
      return matrix;
    },
    tensor(name, shape): Tensor {
      storedFormat(file, { name, shape });
      const tensor = createTensor(device, { shape, label: name });
      tensors.push({ tensor, weight: { name, shape } });
      return tensor;
    },
  });
  return { weights, matrices, tensors };
}

/** Tensors that exporters leave in files although nothing is to be read from them. */
const HARMLESS = /rotary_emb\.inv_freq$/;

/** A bias, say, that this program knows nothing of would silently be left out of the computation. */
function checkExtraWeights(
  { tieWordEmbeddings }: ModelConfig,
  { file: { path, entries, others }, wanted }: { file: WeightFile; wanted: ReadonlyMap<string, unknown> },
): void {
  for (const name of [...entries.keys(), ...others.keys()]) {
    const isTiedHead = tieWordEmbeddings && name === "lm_head.weight";
    if (wanted.has(name) || isTiedHead || HARMLESS.test(name)) continue;
    throw new CheckpointError(
      `Cannot load ${path}: tensor "${name}" has no place in the model that config.json describes; ` +
        "correct config.json, or convert the checkpoint",
    );
  }
}

function matrixFormat(
  choice: MatrixChoice,
  { file, parts, columns }: { file: WeightFile; parts: readonly WantedWeight[]; columns: number },
): MatrixFormat {
  const stored = new Set(parts.map((part) => storedFormat(file, part)));
  if (columns % BLOCK_LENGTH !== 0) return "f32";
  if (choice !== "auto") return choice;
  const [format] = stored;
  return stored.size === 1 && MATRIX_FORMATS.find((known) => known === format) || "f32";
}

/**
 * Fills planned weights.
 *
 * @param onProgress Called with the numbers filled so far.
 * @throws CheckpointError when the file ends before; CheckpointError also for numbers beyond a packed format's range.
 */
export async function fillWeights(
  device: GpuDevice,
  { matrices, tensors }: PlannedWeights,
  { file, onProgress }: { file: WeightFile; onProgress?: (numbers: number) => void },
): Promise<void> {
  let filled = 0;
  for (const { tensor, weight } of tensors) {
    for await (const { start, format, bytes } of storedRows(file, weight)) {
      const width = weight.shape.at(-1)!;
      const values = decodeNumbers(format, bytes);
      writeTensor(device, viewTensor(tensor, { start: start * width, shape: [values.length] }), values);
    }
  }
  for (const { matrix, parts } of matrices) {
    const writer = rowWriter(device, matrix);
    for (const part of parts) {
      for await (const rows of storedRows(file, part)) {
        writer.write(part.name, rows);
        onProgress?.(filled += rows.count * part.shape[1]!);
      }
    }
    writer.end();
  }
}

/** What takes the rows of a matrix in order and writes them in its format: as they are stored if that is the same. */
interface RowWriter {
  /** @param name Of the weight that the rows belong to. */
  write(name: string, rows: StoredRows): void;
  end(): void;
}

function rowWriter(device: GpuDevice, matrix: Matrix): RowWriter {
  if (isPacked(matrix)) {
    const writer = new PackedWriter(device, matrix);
    return {
      write: (name, { format, bytes }) =>
        writer.write(convertNumbers(bytes, { name, from: format, to: matrix.format })),
      end: () => writer.end(),
    };
  }
  let written = 0;
  return {
    write(_name, { format, bytes }): void {
      const values = decodeNumbers(format, bytes);
      writeTensor(device, viewTensor(matrix, { start: written, shape: [values.length] }), values);
      written += values.length;
    },
    end: () => {},
  };
}

/** Numbers in the matrices of each format, most first. */
export function formatCounts({ matrices }: PlannedWeights): [MatrixFormat, number][] {
  const counts = new Map<MatrixFormat, number>();
  for (const { matrix, parts } of matrices) {
    const format = isPacked(matrix) ? matrix.format : "f32";
    const numbers = parts.reduce((sum, { shape }) => sum + elementCount(shape), 0);
    counts.set(format, (counts.get(format) ?? 0) + numbers);
  }
  return [...counts].sort(([, a], [, b]) => b - a);
}
