/** GGUF headers taken apart without the product, and put together wrongly. */
import { concat, u64 } from "./gguf_bytes.ts";
import { createRandom } from "./random.ts";

/** A value of the metadata with its type, and the type of its items if it is a list. */
export interface GgufMetadatum {
  readonly type: number;
  readonly itemType: number | null;
  readonly value: unknown;
  /** Its bytes in the file, key and type included. */
  readonly span: Span;
}

export interface GgufTensorInfo {
  readonly name: string;
  /** Innermost first. */
  readonly dimensions: readonly number[];
  /** ggml's number of the type. */
  readonly type: number;
  readonly offset: number;
  readonly span: Span;
}

/** From `begin` up to `end`. */
interface Span {
  readonly begin: number;
  readonly end: number;
}

/** A number of the header that says how long, how many, of what type or where something is. */
interface Place {
  readonly at: number;
  readonly bytes: 4 | 8;
}

export interface GgufAnatomy {
  readonly values: ReadonlyMap<string, GgufMetadatum>;
  readonly tensors: readonly GgufTensorInfo[];
  readonly places: readonly Place[];
  /** Bytes of the header. */
  readonly length: number;
}

type Scalar = (view: DataView, at: number) => unknown;

/** Bytes and reader of the types that are numbers or truth values. */
const SCALARS: Readonly<Record<number, readonly [bytes: number, read: Scalar]>> = {
  0: [1, (view, at) => view.getUint8(at)],
  1: [1, (view, at) => view.getInt8(at)],
  2: [2, (view, at) => view.getUint16(at, true)],
  3: [2, (view, at) => view.getInt16(at, true)],
  4: [4, (view, at) => view.getUint32(at, true)],
  5: [4, (view, at) => view.getInt32(at, true)],
  6: [4, (view, at) => view.getFloat32(at, true)],
  7: [1, (view, at) => view.getUint8(at) !== 0],
  10: [8, (view, at) => Number(view.getBigUint64(at, true))],
  11: [8, (view, at) => Number(view.getBigInt64(at, true))],
  12: [8, (view, at) => view.getFloat64(at, true)],
};

/** @throws RangeError or TypeError for bytes that are no GGUF header. */
export function ggufAnatomy(bytes: Uint8Array<ArrayBuffer>): GgufAnatomy {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const places: Place[] = [];
  let at = 8;

  function number(size: 4 | 8): number {
    places.push({ at, bytes: size });
    at += size;
    return size === 4 ? view.getUint32(at - 4, true) : Number(view.getBigUint64(at - 8, true));
  }
  function string(): string {
    const length = number(8);
    if (at + length > bytes.length) throw new RangeError("a text beyond the end");
    at += length;
    return decoder.decode(bytes.subarray(at - length, at));
  }
  function value(type: number): unknown {
    if (type === 8) return string();
    const [size, read] = SCALARS[type]!;
    at += size;
    return read(view, at - size);
  }
  const [tensorCount, valueCount] = [number(8), number(8)];
  const values = new Map<string, GgufMetadatum>();
  for (let i = 0; i < valueCount; i++) {
    const begin = at;
    const key = string();
    const type = number(4);
    const itemType = type === 9 ? number(4) : null;
    const read = itemType === null
      ? value(type)
      : Array.from({ length: Math.min(number(8), bytes.length) }, () => value(itemType));
    if (values.has(key)) throw new RangeError(`"${key}" twice`);
    values.set(key, { type, itemType, value: read, span: { begin, end: at } });
  }
  const tensors = Array.from({ length: Math.min(tensorCount, bytes.length) }, (): GgufTensorInfo => {
    const begin = at;
    const name = string();
    const dimensions = Array.from({ length: Math.min(number(4), bytes.length) }, () => number(8));
    const [type, offset] = [number(4), number(8)];
    return { name, dimensions, type, offset, span: { begin, end: at } };
  });
  return { values, tensors, places, length: at };
}

/** Types, and lengths, counts and offsets that no file has. */
const NASTY = [
  ...[0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 30].map(BigInt),
  2n ** 31n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

/** One number, value or tensor of the header changed, moved, left out or there twice, the rest as it was. */
export function mutatedGguf(
  bytes: Uint8Array<ArrayBuffer>,
  { seed }: { seed: number },
): Uint8Array<ArrayBuffer> {
  const random = createRandom(seed);
  const pick = <T>(choices: readonly T[]): T => choices[random.integer(choices.length)]!;
  const { values, tensors, places, length } = ggufAnatomy(bytes);
  const view = new DataView(bytes.buffer);
  const isValue = random.integer(2) === 0;
  const spans = isValue ? [...values.values()].map(({ span }) => span) : tensors.map(({ span }) => span);
  const [one, other] = [pick(spans), pick(spans)];
  const bytesOf = ({ begin, end }: Span): Uint8Array => bytes.subarray(begin, end);

  function withNumber(): Uint8Array<ArrayBuffer> {
    // Most are lengths of tokens.
    const place = random.integer(2) === 0
      ? pick(places)
      : pick(places.filter(({ at }) => at >= tensors[0]!.span.begin));
    const met = place.bytes === 4
      ? BigInt(view.getUint32(place.at, true))
      : view.getBigUint64(place.at, true);
    const value = BigInt.asUintN(
      64,
      pick([...NASTY, met + 1n, met - 1n, met * 2n, met / 2n, met + 32n, met - 32n]),
    );
    const out = bytes.slice();
    out.set(u64(value).subarray(0, place.bytes), place.at);
    return out;
  }
  /** The header's spans in another order or number, its data at a multiple of 32 as before. */
  function rebuilt(ordered: readonly Span[]): Uint8Array<ArrayBuffer> {
    const difference = ordered.length - spans.length;
    const start = concat(
      bytes.subarray(0, 8),
      u64(BigInt(tensors.length + (isValue ? 0 : difference))),
      u64(BigInt(values.size + (isValue ? difference : 0))),
    );
    const kept = concat(
      start,
      isValue ? new Uint8Array(0) : bytes.subarray(24, spans[0]!.begin),
      ...ordered.map(bytesOf),
      isValue ? bytes.subarray(spans.at(-1)!.end, length) : new Uint8Array(0),
    );
    const padding = new Uint8Array(-kept.length & 31);
    return concat(kept, padding, bytes.subarray(Math.ceil(length / 32) * 32));
  }
  const swap = (span: Span): Span => span === one ? other : span === other ? one : span;
  const changes = [
    withNumber,
    withNumber,
    withNumber,
    () => rebuilt(spans.filter((span) => span !== one)),
    () => rebuilt([...spans, one]),
    () => rebuilt(spans.map(swap)),
    () => rebuilt(spans.map((span) => span === one ? other : span)),
  ];
  return pick(changes)();
}
