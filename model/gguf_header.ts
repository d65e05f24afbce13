/**
 * The header of a GGUF file: metadata (name to value), then each tensor's name, dimensions, type and place. It is parsed
 * by `@huggingface/gguf`, which reads past the end of a file as zeros and takes counts at their word; so every count,
 * length and type is checked against the file before.
 */
import type { MetadataValue } from "@huggingface/gguf";
import { brief } from "./config_schema.ts";
import { readFull } from "./files.ts";
import { CheckpointError } from "./safetensors.ts";

export type GgufValue = string | number | boolean | readonly GgufValue[];

export interface GgufTensor {
  readonly name: string;
  /** Innermost first: a matrix (N, K) is [K, N]. */
  readonly dimensions: readonly number[];
  /** As ggml names it, "Q8_0" for example. */
  readonly type: string;
  /** First byte, counted from `dataStart`. */
  readonly offset: number;
}

export interface GgufHeader {
  readonly metadata: Readonly<Record<string, GgufValue>>;
  readonly tensors: readonly GgufTensor[];
  /** Place of the data in the file. */
  readonly dataStart: number;
  /** Tensors, and so the data's start and end, lie at multiples of this many bytes. */
  readonly alignment: number;
}

type Fail = (text: string) => never;

/** The parser holds no more than 50 MB, in pieces of 2 MB. Headers of large vocabularies have some 10 MB. */
const MAX_HEADER_BYTES = 48_000_000;

/** As llama.cpp. */
const MAX_DIMENSIONS = 4;

/** Several times the longest name in use; far below what the parser reads in one go. */
const MAX_NAME_LENGTH = 1000;

/** Bytes of a value by its type's number; strings and arrays have none of their own. */
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, null, null, 8, 8, 8] as const;
const STRING = 8;
const ARRAY = 9;

/** @throws CheckpointError when the header is not complete and consistent. */
export async function readGgufHeader(file: Deno.FsFile, path: string): Promise<GgufHeader> {
  function fail(text: string): never {
    throw new CheckpointError(`Cannot load ${path}: ${text}`);
  }
  const { size } = await file.stat();
  const bytes = new Uint8Array(Math.min(size, MAX_HEADER_BYTES));
  if (!await readFull(file, bytes)) fail("the file shrank while it was read");
  const lastTexts = checkHeader(bytes, fail);
  // Loaded when there is a file to parse: commands that read none start sooner.
  const { GGMLQuantizationType, gguf } = await import("@huggingface/gguf");
  const { metadata, tensorInfos, tensorInfoByteRange: [, end] } = await gguf("https://header.invalid", {
    fetch: serve(bytes),
  }).catch((error: Error) => fail(error.message));
  const values = Object.fromEntries(
    Object.entries(metadata).map(([key, value]) => [key, plain(value, lastTexts.get(key))]),
  );
  const alignment = values["general.alignment"] ?? 32;
  if (typeof alignment !== "number" || !Number.isInteger(Math.log2(alignment))) {
    fail(`general.alignment is ${brief(alignment)}, wanted a power of two`);
  }
  return {
    metadata: values,
    tensors: tensorInfos.map(({ name, shape, dtype, offset }) => ({
      name,
      dimensions: shape.map(Number),
      type: GGMLQuantizationType[dtype] ?? `of type ${dtype}`,
      offset: Number(offset),
    })),
    dataStart: Math.ceil(end / alignment) * alignment,
    alignment,
  };
}

/** The parser reads ranges from a server; here that is the memory the header is in. */
function serve(bytes: Uint8Array<ArrayBuffer>): typeof fetch {
  return (_address, init) => {
    const [begin, last] = new Headers(init!.headers).get("range")!.match(/\d+/g)!.map(Number);
    return Promise.resolve(new Response(bytes.subarray(begin, last! + 1)));
  };
}

/**
 * A parsed value without bigints. The parser cuts a text off where a piece of 2 MB ends if nothing follows it in its
 * value; `lastText` is that text, whole.
 */
function plain(value: MetadataValue, lastText: string | undefined): GgufValue {
  if (Array.isArray(value)) {
    const items = value.map((item) => plain(item, undefined));
    return lastText === undefined ? items : [...items.slice(0, -1), lastText];
  }
  return lastText ?? (typeof value === "bigint" ? Number(value) : value);
}

/** Walks through the whole header; returns the last text of each value that has one. */
function checkHeader(bytes: Uint8Array<ArrayBuffer>, fail: Fail): Map<string, string> {
  const view = new DataView(bytes.buffer);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let at = 0;

  /** Steps over some bytes and returns where they begin. */
  function skip(count: number): number {
    if (count > bytes.length - at) {
      fail(`the file is truncated or damaged: its header does not end within ${bytes.length} bytes`);
    }
    at += count;
    return at - count;
  }
  function uint32(): number {
    return view.getUint32(skip(4), true);
  }
  function uint64(): number {
    return Number(view.getBigUint64(skip(8), true));
  }
  function text(): string {
    const length = uint64();
    const begin = skip(length);
    try {
      return decoder.decode(bytes.subarray(begin, begin + length));
    } catch {
      return fail(`the file is damaged: the text at byte ${begin} is not UTF-8`);
    }
  }
  function name(seen: Set<string>): string {
    const begin = at;
    const met = text();
    // The name is going to be part of messages, which are one line.
    if (met.length > MAX_NAME_LENGTH || /\p{Cc}/u.test(met)) {
      fail(`the file is damaged: what begins at byte ${begin} cannot be a name`);
    }
    if (seen.has(met)) fail(`the file is damaged: it has "${met}" twice`);
    seen.add(met);
    return met;
  }
  /** Returns the last text, if there is one. */
  function items(type: number, count: number): string | undefined {
    const itemBytes = VALUE_BYTES[type];
    if (itemBytes) skip(count * itemBytes);
    else if (type !== STRING) {
      fail(`the file is damaged: a value before byte ${at} has the unknown type ${type}`);
    }
    let last: string | undefined;
    for (let i = 0; !itemBytes && i < count; i++) last = text();
    return last;
  }

  checkStart(view, { skip, fail });
  const [tensorCount, valueCount] = [uint64(), uint64()];
  const lastTexts = new Map<string, string>();
  const keys = new Set<string>();
  for (let i = 0; i < valueCount; i++) {
    const key = name(keys);
    const type = uint32();
    const last = type === ARRAY ? items(uint32(), uint64()) : items(type, 1);
    if (last !== undefined) lastTexts.set(key, last);
  }
  const tensors = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const tensor = name(tensors);
    const dimensions = uint32();
    if (dimensions > MAX_DIMENSIONS) {
      fail(`tensor "${tensor}" has ${dimensions} dimensions, wanted at most 4`);
    }
    skip(8 * dimensions + 4 + 8);
  }
  return lastTexts;
}

function checkStart(view: DataView, { skip, fail }: { skip: (count: number) => number; fail: Fail }): void {
  if (view.byteLength < 8 || view.getUint32(skip(4), false) !== 0x47475546) {
    fail("it is not a GGUF file (it does not begin with GGUF)");
  }
  const version = view.getUint32(skip(4), true);
  if (version === 2 || version === 3) return;
  const isBigEndian = (version & 0xffff) === 0;
  fail(
    isBigEndian
      ? "it is a big-endian GGUF file, wanted a little-endian one"
      : `it is a GGUF file of version ${version}, wanted 2 or 3; convert the model again with a newer llama.cpp`,
  );
}
