/**
 * The header of a GGUF file: metadata (key to value), then each tensor's name, dimensions, type and place. Numbers and
 * tensors are parsed by `@huggingface/gguf`, which reads past the end of a file as zeros and takes counts at their word;
 * so the whole header is checked before (gguf_header_check.ts), which also reads the texts.
 */
import type { MetadataValue } from "@huggingface/gguf";
import { brief } from "../config_schema.ts";
import { readFull } from "./whole_file.ts";
import { checkGgufHeader } from "./gguf_header_check.ts";
import { CheckpointError } from "./safetensors.ts";

/** A value of the metadata; 64-bit integers are rounded to float64. */
export type GgufValue = string | number | boolean | readonly GgufValue[];

/** What the header says of a tensor. */
export interface GgufTensor {
  readonly name: string;
  /** Innermost first: a matrix (N, K) is [K, N]. */
  readonly dimensions: readonly number[];
  /** As ggml names it, "Q8_0" for example. */
  readonly type: string;
  /** First byte, counted from `dataStart`. */
  readonly offset: number;
}

/** What a file says before its data. */
export interface GgufHeader {
  /** By key; besides, the parser's `version`, `tensor_count` and `kv_count`. */
  readonly metadata: Readonly<Record<string, GgufValue>>;
  readonly tensors: readonly GgufTensor[];
  /** Place of the data in the file. */
  readonly dataStart: number;
  /** The data, and each tensor in it, begins at a multiple of so many bytes. */
  readonly alignment: number;
}

/** The parser holds 50 MB at most. The headers of large vocabularies have some 10 MB. */
const MAX_HEADER_BYTES = 48_000_000;

/**
 * Reads the header of an open file.
 *
 * @throws CheckpointError when the header is not complete and consistent.
 */
export async function readGgufHeader(file: Deno.FsFile, path: string): Promise<GgufHeader> {
  function fail(text: string): never {
    throw new CheckpointError(`Cannot load ${path}: ${text}`);
  }
  const { size } = await file.stat();
  const bytes = new Uint8Array(Math.min(size, MAX_HEADER_BYTES));
  if (!await readFull(file, bytes)) fail("the file shrank while it was read");
  const { texts, rest, length } = checkGgufHeader(bytes, fail);
  // Loaded when there is a file to parse: commands that read none start sooner.
  const { GGMLQuantizationType, gguf } = await import("@huggingface/gguf");
  const { metadata, tensorInfos } = await gguf("https://header.invalid", {
    fetch: serve(await new Blob([...rest]).bytes()),
  }).catch((error: Error) => fail(error.message));
  const values = Object.fromEntries(
    Object.entries(metadata).map(([key, value]) => [key, texts.get(key) ?? withoutBigints(value)]),
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
    dataStart: Math.ceil(length / alignment) * alignment,
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

function withoutBigints(value: MetadataValue): GgufValue {
  if (Array.isArray(value)) return value.map(withoutBigints);
  return typeof value === "bigint" ? Number(value) : value;
}
