/** Writes GGUF files, damaged ones too. Apart from the product on purpose: it knows nothing of what the product checks. */

import { join } from "@std/path";
import { folderTest } from "./program.ts";

/** A value's type and bytes. */
export type GgufField = Uint8Array<ArrayBuffer>;

/** A tensor of zeros. */
export interface TensorPart {
  readonly name: string;
  /** Innermost first. */
  readonly dimensions: readonly number[];
  /** ggml's number of the type; 0 is F32. */
  readonly type?: number;
  /** Zeros in the file; four for each number unless given. */
  readonly bytes?: number;
  /** Where the header says they are, if not where they are. */
  readonly offset?: bigint;
}

/** What a file is made of. */
export interface GgufParts {
  readonly version?: number;
  /** As the header says. */
  readonly tensorCount?: bigint;
  readonly valueCount?: bigint;
  readonly values: readonly (readonly [key: string, value: GgufField])[];
  readonly tensors: readonly TensorPart[];
  /** Of the tensors; 32 unless `general.alignment` says so. */
  readonly alignment?: number;
}

export function uint32(value: number): GgufField {
  return concat(u32(4), u32(value));
}

export function float32(value: number): GgufField {
  return concat(u32(6), new Uint8Array(Float32Array.of(value).buffer));
}

export function text(value: string): GgufField {
  return concat(u32(8), characters(value));
}

export function texts(values: readonly string[]): GgufField {
  return array(8, { count: BigInt(values.length), items: concat(...values.map(characters)) });
}

export function array(
  type: number,
  { count, items }: { count: bigint; items: Uint8Array<ArrayBuffer> },
): GgufField {
  return concat(u32(9), u32(type), u64(count), items);
}

export function u32(value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

export function u64(value: bigint): Uint8Array<ArrayBuffer> {
  return new Uint8Array(BigUint64Array.of(value).buffer);
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

export function ggufBytes(
  { version = 3, values, tensors, alignment = 32, ...counts }: GgufParts,
): Uint8Array<ArrayBuffer> {
  const { tensorCount = BigInt(tensors.length), valueCount = BigInt(values.length) } = counts;
  const infos: Uint8Array[] = [];
  let dataBytes = 0;
  for (const { name, dimensions, type = 0, bytes, offset } of tensors) {
    infos.push(characters(name), u32(dimensions.length), ...dimensions.map((size) => u64(BigInt(size))));
    infos.push(u32(type), u64(offset ?? BigInt(dataBytes)));
    dataBytes += padded(bytes ?? 4 * dimensions.reduce((product, size) => product * size, 1), alignment);
  }
  const header = concat(
    new TextEncoder().encode("GGUF"),
    u32(version),
    u64(tensorCount),
    u64(valueCount),
    ...values.flatMap(([key, value]) => [characters(key), value]),
    ...infos,
  );
  return concat(header, new Uint8Array(padded(header.length, alignment) - header.length + dataBytes));
}

function characters(value: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(value);
  return concat(u64(BigInt(bytes.length)), bytes);
}

function padded(length: number, alignment: number): number {
  return Math.ceil(length / alignment) * alignment;
}

/** The least that a Llama model has: one layer of width 4, a vocabulary of 2. */
export const smallestModel: GgufParts = {
  values: [
    ["general.architecture", text("llama")],
    ["llama.block_count", uint32(1)],
    ["llama.context_length", uint32(16)],
    ["llama.embedding_length", uint32(4)],
    ["llama.feed_forward_length", uint32(8)],
    ["llama.attention.head_count", uint32(1)],
    ["llama.attention.layer_norm_rms_epsilon", float32(1e-6)],
  ],
  tensors: [
    { name: "token_embd.weight", dimensions: [4, 2] },
    { name: "blk.0.attn_norm.weight", dimensions: [4] },
    ...["q", "k", "v", "output"].map((part) => ({ name: `blk.0.attn_${part}.weight`, dimensions: [4, 4] })),
    { name: "blk.0.ffn_norm.weight", dimensions: [4] },
    { name: "blk.0.ffn_gate.weight", dimensions: [4, 8] },
    { name: "blk.0.ffn_up.weight", dimensions: [4, 8] },
    { name: "blk.0.ffn_down.weight", dimensions: [8, 4] },
    { name: "output_norm.weight", dimensions: [4] },
  ],
};

/** A test with the path of a file to write, in a folder that goes away. */
export function fileTest(name: string, body: (path: string) => Promise<void>): void {
  folderTest(name, (folder) => body(join(folder, "model.gguf")));
}
