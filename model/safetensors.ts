/**
 * The safetensors format: eight bytes of header length, a JSON header (tensor name to dtype, shape and byte range, and
 * string metadata), then the bytes. Tensors are read one at a time, so that a model never stands in memory twice.
 */
import { z } from "zod";
import { readFull, replaceFile, writeAll } from "./files.ts";

/** A file that is damaged, or does not fit what it is used for. */
export class CheckpointError extends Error {
  override readonly name = "CheckpointError";
}

export interface TensorEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Byte range [begin, end) after the header. */
  readonly dataOffsets: readonly [begin: number, end: number];
}

/** A float32 tensor to write; `data` is called when its turn comes. */
export interface TensorSource {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: () => Promise<Float32Array> | Float32Array;
}

const entrySchema = z.object({
  dtype: z.string(),
  shape: z.array(z.int().nonnegative()),
  data_offsets: z.tuple([z.int().nonnegative(), z.int().nonnegative()]),
});
const headerSchema = z.record(z.string(), z.unknown());
const metadataSchema = z.record(z.string(), z.string()).optional();

/** Headers are JSON text of a few hundred bytes a tensor; more than this is not a safetensors file. */
const MAX_HEADER_BYTES = 100_000_000;

/** An open file whose header has been checked against the file's length. */
export class SafetensorsFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly #file: Deno.FsFile;
  readonly #dataStart: number;

  private constructor(file: Deno.FsFile, { path, entries, metadata, dataStart }: {
    path: string;
    entries: Map<string, TensorEntry>;
    metadata: Record<string, string>;
    dataStart: number;
  }) {
    this.#file = file;
    this.path = path;
    this.entries = entries;
    this.metadata = metadata;
    this.#dataStart = dataStart;
  }

  /** @throws CheckpointError when the file is not complete and consistent. */
  static async open(path: string): Promise<SafetensorsFile> {
    const file = await openForReading(path);
    try {
      return new SafetensorsFile(file, { path, ...await readHeader(file, path) });
    } catch (error) {
      file.close();
      throw error;
    }
  }

  /**
   * A tensor's elements as float32.
   *
   * @throws CheckpointError for a missing tensor, another shape or a dtype other than F32.
   */
  async readFloat32(name: string, shape: readonly number[]): Promise<Float32Array<ArrayBuffer>> {
    const entry = this.entries.get(name);
    if (!entry) throw new CheckpointError(`Cannot load ${this.path}: tensor "${name}" is missing`);
    if (entry.shape.join() !== shape.join()) {
      throw new CheckpointError(
        `Cannot load ${this.path}: tensor "${name}" has shape (${entry.shape.join(", ")}), ` +
          `expected (${shape.join(", ")}) as config.json says`,
      );
    }
    if (entry.dtype !== "F32") {
      throw new CheckpointError(`Cannot load ${this.path}: tensor "${name}" is ${entry.dtype}, expected F32`);
    }
    const [begin, end] = entry.dataOffsets;
    const bytes = new Uint8Array(end - begin);
    await this.#file.seek(this.#dataStart + begin, Deno.SeekMode.Start);
    if (!await readFull(this.#file, bytes)) {
      throw new CheckpointError(`Cannot load ${this.path}: the file ends inside tensor "${name}"`);
    }
    return new Float32Array(bytes.buffer);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

async function openForReading(path: string): Promise<Deno.FsFile> {
  try {
    return await Deno.open(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) {
      throw new CheckpointError(`Cannot load ${path}: no such file`, { cause });
    }
    throw cause;
  }
}

async function readHeader(file: Deno.FsFile, path: string): Promise<{
  entries: Map<string, TensorEntry>;
  metadata: Record<string, string>;
  dataStart: number;
}> {
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
  const header = parseHeader(new TextDecoder().decode(text), fail);
  const { __metadata__, ...tensors } = header;
  const entries = new Map<string, TensorEntry>();
  let dataBytes = 0;
  for (const [name, value] of Object.entries(tensors)) {
    const entry = entrySchema.safeParse(value);
    if (!entry.success) fail(`the header's entry "${name}" is malformed`);
    const { dtype, shape, data_offsets: [begin, end] } = entry.data;
    const expected = shape.reduce((product, n) => product * n, 1) * bytesOf(dtype);
    if (end - begin !== expected) {
      fail(`tensor "${name}" spans ${end - begin} bytes, its shape needs ${expected}`);
    }
    entries.set(name, { dtype, shape, dataOffsets: [begin, end] });
    dataBytes = Math.max(dataBytes, end);
  }
  if (8 + headerBytes + dataBytes !== size) {
    fail(
      `the file is truncated or damaged: ${size} bytes, its header speaks of ${8 + headerBytes + dataBytes}`,
    );
  }
  const metadata = metadataSchema.safeParse(__metadata__);
  if (!metadata.success) fail("the header's metadata is malformed");
  return { entries, metadata: metadata.data ?? {}, dataStart: 8 + headerBytes };
}

function parseHeader(text: string, fail: (text: string) => never): Record<string, unknown> {
  try {
    return headerSchema.parse(JSON.parse(text));
  } catch {
    return fail("its header is not JSON; is it a safetensors file?");
  }
}

function bytesOf(dtype: string): number {
  const bits = /(\d+)/.exec(dtype)?.[1];
  return dtype === "BOOL" ? 1 : Number(bits ?? 0) / 8;
}

/** Writes a file in one step (see `replaceFile`) and reads its header back before it takes its place. */
export async function writeSafetensors(
  path: string,
  { tensors, metadata }: { tensors: readonly TensorSource[]; metadata: Readonly<Record<string, string>> },
): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const { name, shape } of tensors) {
    const bytes = shape.reduce((product, n) => product * n, 1) * 4;
    header[name] = { dtype: "F32", shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  // Data starts at a multiple of eight bytes; the header is padded with spaces.
  const text = new Uint8Array(Math.ceil(json.length / 8) * 8).fill(32);
  text.set(json);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
  await replaceFile(path, {
    write: async (file) => {
      await writeAll(file, length);
      await writeAll(file, text);
      for (const { data } of tensors) {
        const { buffer, byteOffset, byteLength } = await data();
        await writeAll(file, new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength));
      }
    },
    verify: async (unfinished) => (await SafetensorsFile.open(unfinished))[Symbol.dispose](),
  });
}
