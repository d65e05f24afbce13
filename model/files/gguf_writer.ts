/** Writing GGUF files, a tensor at a time. The metadata's bytes are made by `@huggingface/gguf`. */
import type { GGUFTypedMetadata } from "@huggingface/gguf";
import { replaceFile, writeAll } from "./whole_file.ts";
import { openGguf } from "./gguf_file.ts";
import { type NumberFormat, rowBytes } from "./number_formats.ts";

/** A value of the metadata, with the number of its type. */
export type GgufField = GGUFTypedMetadata[string];

/** Metadata by key. */
export type GgufFields = Readonly<Record<string, GgufField>>;

/** A tensor to write, under its name in the file. */
export interface GgufSource {
  readonly name: string;
  /** (N, K), or (K) for a vector. */
  readonly shape: readonly number[];
  readonly format: NumberFormat;
  /** Called when the tensor's turn comes: the bytes of its format in pieces. */
  readonly data: () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

const VERSION = 3;

/** The data, and each tensor in it, begins at a multiple of so many bytes: the format's default. */
const ALIGNMENT = 32;

const [UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64] = [4, 5, 6, 7, 8, 9, 10] as const;

export function uint32(value: number): GgufField {
  return { value, type: UINT32 };
}

export function float32(value: number): GgufField {
  return { value, type: FLOAT32 };
}

export function boolean(value: boolean): GgufField {
  return { value, type: BOOL };
}

export function text(value: string): GgufField {
  return { value, type: STRING };
}

export function texts(value: readonly string[]): GgufField {
  return { value: [...value], type: ARRAY, subType: STRING };
}

export function int32s(value: readonly number[]): GgufField {
  return { value: [...value], type: ARRAY, subType: INT32 };
}

export function float32s(value: readonly number[]): GgufField {
  return { value: [...value], type: ARRAY, subType: FLOAT32 };
}

/**
 * Writes a file in one step (see `replaceFile`) and reads its header back before it takes its place.
 *
 * @throws CheckpointError when a source's data is not of its shape.
 */
export async function writeGguf(
  path: string,
  { metadata, tensors }: { metadata: GgufFields; tensors: readonly GgufSource[] },
): Promise<void> {
  const header = await headerBytes({ metadata, tensors });
  await replaceFile(path, {
    write: async (file) => {
      await writeAll(file, header);
      await writeAll(file, padding(header.length));
      for (const tensor of tensors) {
        for await (const bytes of tensor.data()) await writeAll(file, bytes);
        await writeAll(file, padding(dataBytes(tensor)));
      }
    },
    verify: async (unfinished) => (await openGguf(unfinished))[Symbol.dispose](),
  });
}

/** Metadata, then each tensor's name, dimensions (innermost first), type and place in the data. */
async function headerBytes(
  { metadata, tensors }: { metadata: GgufFields; tensors: readonly GgufSource[] },
): Promise<Uint8Array<ArrayBuffer>> {
  // Loaded when there is a file to write: other commands start sooner.
  const { GGMLQuantizationType, serializeGgufMetadata } = await import("@huggingface/gguf");
  const typeOf = (format: NumberFormat): number =>
    GGMLQuantizationType[format.toUpperCase() as Uppercase<NumberFormat>];
  const typed = {
    version: { value: VERSION, type: UINT32 },
    tensor_count: { value: BigInt(tensors.length), type: UINT64 },
    kv_count: { value: BigInt(Object.keys(metadata).length), type: UINT64 },
    ...metadata,
  } as GGUFTypedMetadata;
  // Not padded: the tensors' entries follow.
  const parts: Uint8Array[] = [serializeGgufMetadata(typed, { alignment: 1 })];
  let offset = 0;
  for (const tensor of tensors) {
    parts.push(tensorEntry(tensor, { type: typeOf(tensor.format), offset }));
    offset += dataBytes(tensor);
    offset += padding(offset).length;
  }
  return await new Blob(parts as Uint8Array<ArrayBuffer>[]).bytes();
}

function tensorEntry(
  { name, shape }: GgufSource,
  { type, offset }: { type: number; offset: number },
): Uint8Array {
  const characters = new TextEncoder().encode(name);
  const bytes = new Uint8Array(8 + characters.length + 4 + 8 * shape.length + 4 + 8);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(characters.length), true);
  bytes.set(characters, 8);
  let at = 8 + characters.length;
  view.setUint32(at, shape.length, true);
  at += 4;
  for (const size of shape.toReversed()) {
    view.setBigUint64(at, BigInt(size), true);
    at += 8;
  }
  view.setUint32(at, type, true);
  view.setBigUint64(at + 4, BigInt(offset), true);
  return bytes;
}

function dataBytes({ shape, format }: GgufSource): number {
  return (shape.length === 2 ? shape[0]! : 1) * rowBytes(format, shape.at(-1)!);
}

/** Zeros up to the next multiple of the alignment. */
function padding(length: number): Uint8Array {
  return new Uint8Array(Math.ceil(length / ALIGNMENT) * ALIGNMENT - length);
}
