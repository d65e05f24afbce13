/** Weights by their Hugging Face names, in whatever file they lie and however their numbers are stored. */
import { Buffer } from "node:buffer";
import { firstNonFinite } from "./finite_numbers.ts";
import { decodeNumbers, type NumberFormat } from "./number_formats.ts";
import { CheckpointError } from "./safetensors.ts";

/** A stored weight. */
export interface WeightEntry {
  /** (N, K), or (K) for a vector. */
  readonly shape: readonly number[];
  readonly format: NumberFormat;
}

/** Rows of a weight; a vector is one row. */
export interface RowRange {
  readonly start: number;
  readonly count: number;
}

/** An open file, or several that make up one checkpoint. Weights are read some rows at a time, never whole models. */
export interface WeightFile extends Disposable {
  /** Names the file in messages. */
  readonly path: string;
  readonly entries: ReadonlyMap<string, WeightEntry>;
  /** Tensors of a dtype that no weight can be, with its name. */
  readonly others: ReadonlyMap<string, string>;
  /**
   * The bytes of some rows, as the weight's format lays them out.
   *
   * @throws CheckpointError when the weight is missing or the file ends before.
   */
  readRows(name: string, rows: RowRange): Promise<Uint8Array<ArrayBuffer>>;
}

/** A weight that a model has. */
export interface WantedWeight {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Some rows of a weight, as stored. */
export interface StoredRows extends RowRange {
  readonly format: NumberFormat;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** Numbers read at a time: 1 MiB as f32. */
const CHUNK_NUMBERS = 256 * 1024;

/**
 * How a weight is stored.
 *
 * @throws CheckpointError when it is missing or has another shape.
 */
export function storedFormat(
  { path, entries, others }: WeightFile,
  { name, shape }: WantedWeight,
): NumberFormat {
  const entry = entries.get(name);
  if (!entry) {
    const dtype = others.get(name);
    const problem = dtype === undefined ? "missing" : `${dtype}, which no weight can be`;
    throw new CheckpointError(`Cannot load ${path}: tensor "${name}" is ${problem}`);
  }
  if (entry.shape.join() !== shape.join()) {
    throw new CheckpointError(
      `Cannot load ${path}: tensor "${name}" has shape (${entry.shape.join(", ")}), ` +
        `expected (${shape.join(", ")}) as the configuration says`,
    );
  }
  return entry.format;
}

/**
 * A weight's rows in order, some at a time.
 *
 * @throws CheckpointError when it is missing, has another shape or numbers that are not finite, or the file ends before.
 */
export async function* storedRows(file: WeightFile, wanted: WantedWeight): AsyncGenerator<StoredRows> {
  const format = storedFormat(file, wanted);
  const { name, shape } = wanted;
  const columns = shape.at(-1)!;
  const rows = shape.length === 1 ? 1 : shape[0]!;
  const step = Math.max(1, Math.floor(CHUNK_NUMBERS / columns));
  for (let start = 0; start < rows; start += step) {
    const count = Math.min(step, rows - start);
    const bytes = await file.readRows(name, { start, count });
    const place = firstNonFinite(format, bytes);
    if (place !== null) {
      const row = shape.length === 1 ? "" : ` in row ${start + Math.floor(place / columns)}`;
      throw new CheckpointError(
        `Cannot load ${file.path}: tensor "${name}" has NaN or infinity${row}, wanted finite numbers; ` +
          "the file is damaged, take another copy or an earlier checkpoint",
      );
    }
    yield { start, count, format, bytes };
  }
}

/** Whether two weights are stored as the same bytes; throws as `storedRows` does. */
export async function areEqual(
  file: WeightFile,
  { shape, names: [a, b] }: { shape: readonly number[]; names: readonly [string, string] },
): Promise<boolean> {
  if (storedFormat(file, { name: a, shape }) !== storedFormat(file, { name: b, shape })) return false;
  for await (const { start, count, bytes } of storedRows(file, { name: a, shape })) {
    const other = await file.readRows(b, { start, count });
    if (Buffer.compare(bytes, other) !== 0) return false;
  }
  return true;
}

/** A whole weight as f32; throws as `storedRows` does. */
export async function readWeight(file: WeightFile, wanted: WantedWeight): Promise<Float32Array<ArrayBuffer>> {
  // First of all: a damaged configuration may want more than there is memory.
  storedFormat(file, wanted);
  const values = new Float32Array(wanted.shape.reduce((product, size) => product * size, 1));
  const columns = wanted.shape.at(-1)!;
  for await (const { start, format, bytes } of storedRows(file, wanted)) {
    values.set(decodeNumbers(format, bytes), start * columns);
  }
  return values;
}
