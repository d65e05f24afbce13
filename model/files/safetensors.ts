/**
 * The safetensors format: eight bytes of header length, a JSON header (tensor name to dtype, shape and byte range, and
 * string metadata), then the bytes. Some rows are read at a time, so that a model never stands in memory twice.
 *
 * Quantized weights, which the format has no dtype for, are U8 tensors (N, bytes of a row) whose rows are GGUF's blocks;
 * the metadata's `quantized` names their format, `quantized:NAME` that of one which differs.
 */
import { z } from "zod";
import { readFull } from "./whole_file.ts";
import { parseJson } from "./json_text.ts";
import { blockLength, type NumberFormat, rowBytes } from "./number_formats.ts";
import { oneLine } from "./one_line.ts";
import type { RowRange, WeightEntry, WeightFile } from "./weight_file.ts";

/** Characters of a message; what is longer quotes a damaged file. */
const MAX_MESSAGE = 1000;

/** A file that is damaged, or does not fit what it is used for. Its message may quote the file. */
export class CheckpointError extends Error {
  override readonly name = "CheckpointError";

  constructor(message: string, options?: ErrorOptions) {
    super(oneLine(message, { most: MAX_MESSAGE }), options);
  }
}

/** Where a weight lies in the file. */
interface SafetensorsEntry extends WeightEntry {
  /** Byte range [begin, end) after the header. */
  readonly dataOffsets: readonly [begin: number, end: number];
}

/** Dtypes that weights can have. */
const FORMATS: Readonly<Record<string, NumberFormat>> = { F32: "f32", F16: "f16", BF16: "bf16" };

/** Key of the metadata that names the format of U8 tensors, alone or with `:NAME` of one tensor; and what it can be. */
export const QUANTIZED = "quantized";
const QUANTIZED_FORMATS: readonly NumberFormat[] = ["q8_0", "q4_0"];

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().nonnegative()),
  data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
});
const metadataSchema = z.record(z.string(), z.string()).optional();

/** Headers are JSON text of a hundred bytes a tensor or two; more than this is not a safetensors file. */
const MAX_HEADER_BYTES = 25_000_000;

/** What a header says. */
interface Header {
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly others: ReadonlyMap<string, string>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly dataStart: number;
}

/** An open file whose header has been checked against the file's length. */
export class SafetensorsFile implements WeightFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly others: ReadonlyMap<string, string>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #file: Deno.FsFile;
  readonly #dataStart: number;

  private constructor(file: Deno.FsFile, path: string, { entries, others, metadata, dataStart }: Header) {
    this.#file = file;
    this.path = path;
    this.entries = entries;
    this.others = others;
    this.metadata = metadata;
    this.#dataStart = dataStart;
  }

  /** @throws CheckpointError when the file is not complete and consistent. */
  static async open(path: string): Promise<SafetensorsFile> {
    const file = await openForReading(path);
    try {
      return new SafetensorsFile(file, path, await readHeader(file, path));
    } catch (error) {
      file.close();
      throw error;
    }
  }

  async readRows(name: string, { start, count }: RowRange): Promise<Uint8Array<ArrayBuffer>> {
    const entry = this.entries.get(name);
    if (!entry) throw new CheckpointError(`Cannot load ${this.path}: tensor "${name}" is missing`);
    const width = rowBytes(entry.format, entry.shape.at(-1)!);
    const bytes = new Uint8Array(count * width);
    const place = this.#dataStart + entry.dataOffsets[0] + start * width;
    await this.#file.seek(place, Deno.SeekMode.Start);
    if (!await readFull(this.#file, bytes)) {
      throw new CheckpointError(`Cannot load ${this.path}: the file ends inside tensor "${name}"`);
    }
    return bytes;
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** Opens a file to read. @throws CheckpointError when it is not there, a folder, or nothing that is stored, as a pipe. */
export async function openForReading(path: string): Promise<Deno.FsFile> {
  const info = await Deno.stat(path).catch((cause) => {
    if (!(cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.NotADirectory)) throw cause;
    throw new CheckpointError(`Cannot load ${path}: no such file`, { cause });
  });
  if (info.isDirectory) throw new CheckpointError(`Cannot load ${path}: it is a folder, wanted a file`);
  // Opening a pipe would wait for whoever writes into it.
  if (!info.isFile) throw new CheckpointError(`Cannot load ${path}: it is a pipe or a device, wanted a file`);
  return await Deno.open(path);
}

async function readHeader(file: Deno.FsFile, path: string): Promise<Header> {
  function fail(text: string): never {
    throw new CheckpointError(`Cannot load ${path}: ${text}`);
  }
  const { size } = await file.stat();
  const length = new Uint8Array(8);
  if (!await readFull(file, length)) fail(`the file has ${size} bytes, fewer than a safetensors header`);
  const headerBytes = Number(new DataView(length.buffer).getBigUint64(0, true));
  if (headerBytes > MAX_HEADER_BYTES) fail("it is not a safetensors file (its header length is impossible)");
  if (8 + headerBytes > size) fail(`the file is truncated inside its header (${size} bytes)`);
  const text = new Uint8Array(headerBytes);
  await readFull(file, text);
  const { __metadata__, ...tensors } = parseHeader(text, fail);
  const metadata = metadataSchema.safeParse(__metadata__);
  if (!metadata.success) fail("the header's metadata is malformed");
  const { data: names = {} } = metadata;
  const entries = new Map<string, SafetensorsEntry>();
  const others = new Map<string, string>();
  const ranges: (readonly [begin: number, end: number])[] = [];
  for (const [name, value] of Object.entries(tensors)) {
    const entry = entrySchema.safeParse(value);
    if (!entry.success) fail(`the header's entry "${name}" is malformed`);
    const { dtype, shape, data_offsets: [begin, end] } = entry.data;
    const expected = shape.reduce((product, n) => product * n, 1) * bytesOf(dtype);
    if (end - begin !== expected) {
      fail(`tensor "${name}" spans ${end - begin} bytes, its shape needs ${expected}`);
    }
    ranges.push([begin, end]);
    const format = names[`${QUANTIZED}:${name}`] ?? names[QUANTIZED];
    const weight = weightOf(dtype, { shape, quantized: QUANTIZED_FORMATS.find((known) => known === format) });
    if (weight) entries.set(name, { ...weight, dataOffsets: [begin, end] });
    else others.set(name, dtype);
  }
  checkRanges(ranges, fail);
  const dataBytes = ranges.at(-1)?.[1] ?? 0;
  if (8 + headerBytes + dataBytes !== size) {
    fail(
      `the file is truncated or damaged: ${size} bytes, its header speaks of ${8 + headerBytes + dataBytes}`,
    );
  }
  return { entries, others, metadata: names, dataStart: 8 + headerBytes };
}

/** What a tensor holds as a weight; null for a dtype that no weight has. */
function weightOf(
  dtype: string,
  { shape, quantized }: { shape: readonly number[]; quantized: NumberFormat | undefined },
): WeightEntry | null {
  if (Object.hasOwn(FORMATS, dtype)) return { shape, format: FORMATS[dtype]! };
  if (dtype !== "U8" || !quantized || shape.length !== 2) return null;
  const blocks = shape[1]! / rowBytes(quantized, blockLength(quantized));
  return Number.isInteger(blocks)
    ? { shape: [shape[0]!, blocks * blockLength(quantized)], format: quantized }
    : null;
}

/** Sorts the tensors' byte ranges, which must follow one another without overlaps or holes. */
function checkRanges(ranges: (readonly [begin: number, end: number])[], fail: (text: string) => never): void {
  ranges.sort(([a, aEnd], [b, bEnd]) => a - b || aEnd - bEnd);
  let reached = 0;
  for (const [begin, end] of ranges) {
    if (begin !== reached) fail(`its tensors overlap or leave a hole at byte ${Math.min(begin, reached)}`);
    reached = end;
  }
}

function parseHeader(bytes: Uint8Array, fail: (text: string) => never): Record<string, unknown> {
  function failHeader(problem: string): never {
    return fail(`its header ${problem}; is it a safetensors file?`);
  }
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return failHeader("is not UTF-8");
  }
  const header = parseJson(text, failHeader);
  const isRecord = typeof header === "object" && header !== null && !Array.isArray(header);
  return isRecord ? header as Record<string, unknown> : failHeader("is not JSON with fields");
}

function bytesOf(dtype: string): number {
  const bits = /(\d+)/.exec(dtype)?.[1];
  return dtype === "BOOL" ? 1 : Number(bits ?? 0) / 8;
}
