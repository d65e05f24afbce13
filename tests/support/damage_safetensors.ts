/** Safetensors files taken apart without the product, and put together wrongly. */
import { concat, u64 } from "./gguf_bytes.ts";
import { mutatedJson } from "./json_mutations.ts";
import { createRandom } from "./random.ts";

/** What a header says of a tensor. */
export interface SafetensorsEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [begin: number, end: number];
}

/** A file's parts. */
export interface SafetensorsAnatomy {
  readonly metadata: Readonly<Record<string, string>>;
  readonly tensors: ReadonlyMap<string, SafetensorsEntry>;
  readonly data: Uint8Array<ArrayBuffer>;
}

/** @throws Error for bytes that are no such file. */
export function safetensorsAnatomy(bytes: Uint8Array<ArrayBuffer>): SafetensorsAnatomy {
  const dataStart = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, dataStart));
  const { __metadata__, ...tensors } = JSON.parse(text);
  return {
    metadata: __metadata__ ?? {},
    tensors: new Map(Object.entries(tensors as Record<string, SafetensorsEntry>)),
    data: bytes.slice(dataStart),
  };
}

/** A file with any text as its header. */
export function withHeader(text: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const header = new TextEncoder().encode(text);
  return concat(u64(BigInt(header.length)), header, data);
}

/** The header damaged as JSON, or the data where header and length agree with it. */
export function mutatedSafetensors(
  bytes: Uint8Array<ArrayBuffer>,
  { seed }: { seed: number },
): Uint8Array<ArrayBuffer> {
  const random = createRandom(~seed);
  const { metadata, tensors, data } = safetensorsAnatomy(bytes);
  if (random.integer(3) > 0) {
    const json = { __metadata__: metadata, ...Object.fromEntries(tensors) };
    return withHeader(mutatedJson(json, { seed }), data);
  }
  const names = [...tensors.keys()];
  const [one, other] = [names[random.integer(names.length)]!, names[random.integer(names.length)]!];
  // Nothing is wrong with the last two: the tensors in another order, and one in the place of another.
  const damage = [
    "stretched",
    "after a gap",
    "before the end",
    "in one place",
    "moved",
    "swapped",
  ][random.integer(6)]!;
  const order = damage === "moved" ? [...names.filter((name) => name !== one), one] : names;
  const extra = new Uint8Array(4 * (1 + random.integer(3)));
  const pieces: Uint8Array[] = [];
  let length = 0;
  function add(piece: Uint8Array): void {
    pieces.push(piece);
    length += piece.length;
  }
  const header: Record<string, unknown> = { __metadata__: metadata };
  for (const name of order) {
    const { data_offsets, ...entry } = tensors.get(name)!;
    if (damage === "in one place" && name === other && one !== other) continue;
    if (damage === "after a gap" && name === one) add(extra);
    const begin = length;
    add(data.subarray(...data_offsets));
    if (damage === "stretched" && name === one) add(extra);
    header[name] = { ...entry, data_offsets: [begin, length] };
  }
  if (damage === "in one place") header[other] = header[one];
  if (damage === "swapped") [header[one], header[other]] = [header[other], header[one]];
  if (damage === "before the end") add(extra);
  return withHeader(JSON.stringify(header), concat(...pieces));
}
