/** Llama models in llama.cpp's GGUF files, under Hugging Face's names and in its order of rows. */
import { brief } from "../config_schema.ts";
import { type GgufHeader, type GgufValue, readGgufHeader } from "./gguf_header.ts";
import { huggingFaceName, ROPE_FACTORS, rowInGguf } from "./gguf_names.ts";
import { type PlacedTensor, placeTensors } from "./gguf_tensors.ts";
import { decodeNumbers, rowBytes } from "./number_formats.ts";
import { CheckpointError, openForReading } from "./safetensors.ts";
import type { RowRange, WeightEntry, WeightFile } from "./weight_file.ts";

/** An open GGUF file of a Llama model. */
export interface GgufFile extends WeightFile {
  readonly header: GgufHeader;
  /** The header's. */
  readonly metadata: Readonly<Record<string, GgufValue>>;
  /** (D/2): a divisor of each rotary frequency; null if the file has none. */
  readonly ropeFactors: Float32Array<ArrayBuffer> | null;
}

interface GgufWeight extends PlacedTensor {
  /** Length of the heads within which rows are in another order; null where they are not. */
  readonly headDim: number | null;
}

/** Reads `length` bytes from `begin` on. */
type Read = (place: { begin: number; length: number }) => Uint8Array<ArrayBuffer>;
type Fail = (text: string) => never;

/** A vector is one row. */
const ALL: RowRange = { start: 0, count: 1 };

/**
 * Opens a file whose header, tensors and names have been checked.
 *
 * @param header Of the same file, to open it again without the time and memory that reading it takes.
 * @throws CheckpointError when the file is damaged, or not a Llama model that this program can run.
 */
export async function openGguf(
  path: string,
  { header }: { header?: GgufHeader } = {},
): Promise<GgufFile> {
  const file = await openForReading(path);
  try {
    return await readGguf(file, { path, header: header ?? await readGgufHeader(file, path) });
  } catch (error) {
    file.close();
    throw error;
  }
}

async function readGguf(
  file: Deno.FsFile,
  { path, header }: { path: string; header: GgufHeader },
): Promise<GgufFile> {
  function fail(text: string): never {
    throw new CheckpointError(`Cannot load ${path}: ${text}`);
  }
  /** Seeks and reads without a pause, in which another read could move the file's place. */
  function read({ begin, length }: { begin: number; length: number }): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    file.seekSync(begin, Deno.SeekMode.Start);
    for (let filled = 0; filled < length;) {
      filled += file.readSync(bytes.subarray(filled)) ?? fail("the file shrank since it was opened");
    }
    return bytes;
  }
  const { metadata } = header;
  checkKind(metadata, fail);
  const tensors = placeTensors(header, { size: (await file.stat()).size, fail });
  const factors = tensors.get(ROPE_FACTORS);
  tensors.delete(ROPE_FACTORS);
  const entries = nameWeights(tensors, { metadata, fail });
  return {
    path,
    header,
    metadata,
    entries,
    others: new Map(),
    ropeFactors: factors ? decodeNumbers(factors.format, readStored(factors, { rows: ALL, read })) : null,
    readRows: (name, rows) =>
      Promise.try(() => readRows(entries.get(name) ?? fail(`tensor "${name}" is missing`), { rows, read })),
    [Symbol.dispose]: () => file.close(),
  };
}

/** Asks for what the meaning of the tensors depends on. */
function checkKind(metadata: GgufFile["metadata"], fail: Fail): void {
  const architecture = metadata["general.architecture"];
  if (architecture !== "llama") {
    fail(`its general.architecture is ${brief(architecture)}, this program runs "llama"`);
  }
  const parts = metadata["split.count"] ?? 1;
  if (typeof parts !== "number" || parts > 1) {
    fail(`it is one of ${brief(parts)} parts of a model; join them with llama-gguf-split --merge`);
  }
}

function nameWeights(
  tensors: ReadonlyMap<string, PlacedTensor>,
  { metadata, fail }: { metadata: GgufFile["metadata"]; fail: Fail },
): Map<string, GgufWeight> {
  const queryHeads = metadata["llama.attention.head_count"];
  const keyHeads = metadata["llama.attention.head_count_kv"] ?? queryHeads;
  const weights = new Map<string, GgufWeight>();
  for (const [nameInFile, tensor] of tensors) {
    const name = huggingFaceName(nameInFile) ??
      fail(`tensor "${nameInFile}" has no place in a Llama model without biases and experts`);
    const isQuery = name.endsWith(".q_proj.weight");
    const isReordered = isQuery || name.endsWith(".k_proj.weight");
    const heads = isQuery ? queryHeads : keyHeads;
    const { shape } = tensor;
    const headDim = isReordered ? shape[0]! / Number(heads) : null;
    if (headDim !== null && !(shape.length === 2 && headDim > 0 && headDim % 2 === 0)) {
      fail(
        `tensor "${nameInFile}" of shape (${shape.join(", ")}) cannot be split into heads of even length, ` +
          `their number is ${brief(heads)}`,
      );
    }
    weights.set(name, { ...tensor, headDim });
  }
  return weights;
}

function readRows(
  weight: GgufWeight,
  { rows, read }: { rows: RowRange; read: Read },
): Uint8Array<ArrayBuffer> {
  const { headDim } = weight;
  if (headDim === null) return readStored(weight, { rows, read });
  const start = Math.floor(rows.start / headDim) * headDim;
  const end = Math.ceil((rows.start + rows.count) / headDim) * headDim;
  const stored = readStored(weight, { rows: { start, count: end - start }, read });
  const length = bytesPerRow(weight);
  const out = new Uint8Array(rows.count * length);
  for (let i = 0; i < rows.count; i++) {
    const from = (rowInGguf(rows.start + i, { headDim }) - start) * length;
    out.set(stored.subarray(from, from + length), i * length);
  }
  return out;
}

/** Rows as they lie in the file. */
function readStored(
  { begin, ...weight }: PlacedTensor,
  { rows, read }: { rows: RowRange; read: Read },
): Uint8Array<ArrayBuffer> {
  const length = bytesPerRow(weight);
  return read({ begin: begin + rows.start * length, length: rows.count * length });
}

function bytesPerRow({ format, shape }: WeightEntry): number {
  return rowBytes(format, shape.at(-1)!);
}
