/**
 * A walk through a GGUF header, before it is parsed: whether it is as long as it says, and its texts. The parser would
 * take seconds for the vocabulary of a large model, and cut texts off where one of its pieces of the file ends.
 */

/** A header that is complete. */
export interface CheckedHeader {
  readonly texts: ReadonlyMap<string, string | readonly string[]>;
  /** Its bytes, but with empty texts and lists of texts. */
  readonly rest: readonly Uint8Array<ArrayBuffer>[];
  readonly length: number;
}

type Fail = (text: string) => never;

/** Takes one thing after the other, and fails at the end. */
interface Reader {
  /** Bytes taken. */
  readonly at: number;
  skip(bytes: number): void;
  uint32(): number;
  uint64(): number;
  text(): string;
}

/** Tensors, or values: a model has some hundreds of each. */
const MAX_COUNT = 100_000;

/** As llama.cpp. */
const MAX_DIMENSIONS = 4;

/** Several times the longest name in use; far below what the parser reads in one go. */
const MAX_NAME_LENGTH = 1000;

/** Bytes of a value by its type's number; strings and arrays have none of their own. */
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, null, null, 8, 8, 8] as const;
const STRING = 8;
const ARRAY = 9;
const FLOATS: readonly number[] = [6, 12];

/** Keys of numbers with fractions. With the type of an integer, which has as many bytes, they would be others. */
const FRACTION =
  /^(llama\..*(epsilon|freq_base|factor|scale_linear|beta_fast|beta_slow)|tokenizer\.ggml\.scores)$/;

/** Checks the header at the beginning of some bytes. */
export function checkGgufHeader(bytes: Uint8Array<ArrayBuffer>, fail: Fail): CheckedHeader {
  checkStart(bytes, fail);
  const reader = createReader(bytes, fail);
  reader.skip(8);
  const [tensorCount, valueCount] = [reader.uint64(), reader.uint64()];
  if (tensorCount > MAX_COUNT || valueCount > MAX_COUNT) {
    fail(`the file is damaged: its header speaks of ${tensorCount} tensors and ${valueCount} values`);
  }
  const texts = new Map<string, string | readonly string[]>();
  const rest: Uint8Array<ArrayBuffer>[] = [];
  let restStart = 0;
  const keys = new Set<string>();
  for (let i = 0; i < valueCount; i++) {
    const key = takeName(reader, { taken: keys, fail });
    const type = reader.uint32();
    const itemType = type === ARRAY ? reader.uint32() : type;
    if (FRACTION.test(key) && !FLOATS.includes(itemType)) {
      fail(`the file is damaged: "${key}" has the type ${itemType}, wanted ${FLOATS.join(" or ")} (a float)`);
    }
    const begin = reader.at;
    const count = type === ARRAY ? reader.uint64() : 1;
    const itemBytes = VALUE_BYTES[itemType];
    if (itemBytes) {
      reader.skip(count * itemBytes);
      continue;
    }
    if (itemType !== STRING) fail(`the file is damaged: "${key}" has the unknown type ${itemType}`);
    const items: string[] = [];
    for (let item = 0; item < count; item++) items.push(reader.text());
    texts.set(key, type === ARRAY ? items : items[0]!);
    // Eight zeros: the length of an empty text, the count of an empty list.
    rest.push(bytes.subarray(restStart, begin), new Uint8Array(8));
    restStart = reader.at;
  }
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const name = takeName(reader, { taken: names, fail });
    const dimensions = reader.uint32();
    if (dimensions > MAX_DIMENSIONS) {
      fail(`tensor "${name}" has ${dimensions} dimensions, wanted at most ${MAX_DIMENSIONS}`);
    }
    // Dimensions, type and offset.
    reader.skip(8 * dimensions + 4 + 8);
  }
  rest.push(bytes.subarray(restStart, reader.at));
  return { texts, rest, length: reader.at };
}

function checkStart(bytes: Uint8Array<ArrayBuffer>, fail: Fail): void {
  const view = new DataView(bytes.buffer);
  if (bytes.length < 8 || view.getUint32(0, false) !== 0x47475546) {
    fail("it is not a GGUF file (it does not begin with GGUF)");
  }
  const version = view.getUint32(4, true);
  if (version === 2 || version === 3) return;
  const isBigEndian = (version & 0xffff) === 0;
  fail(
    isBigEndian
      ? "it is a big-endian GGUF file, wanted a little-endian one"
      : `it is a GGUF file of version ${version}, wanted 2 or 3; convert the model again with a newer llama.cpp`,
  );
}

/** A key or a tensor's name, which there is once and which fits into a message of one line. */
function takeName(reader: Reader, { taken, fail }: { taken: Set<string>; fail: Fail }): string {
  const begin = reader.at;
  const name = reader.text();
  if (name.length > MAX_NAME_LENGTH || /\p{Cc}/u.test(name)) {
    fail(`the file is damaged: what begins at byte ${begin} cannot be a name`);
  }
  if (taken.has(name)) fail(`the file is damaged: it has "${name}" twice`);
  taken.add(name);
  return name;
}

function createReader(bytes: Uint8Array<ArrayBuffer>, fail: Fail): Reader {
  const view = new DataView(bytes.buffer);
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let at = 0;

  /** Returns the place of the bytes. */
  function take(count: number): number {
    if (count > bytes.length - at) {
      fail(`the file is truncated or damaged: its header does not end within ${bytes.length} bytes`);
    }
    at += count;
    return at - count;
  }
  return {
    get at(): number {
      return at;
    },
    skip: take,
    uint32: () => view.getUint32(take(4), true),
    uint64: () => Number(view.getBigUint64(take(8), true)),
    text(): string {
      const begin = take(Number(view.getBigUint64(take(8), true)));
      try {
        return decoder.decode(bytes.subarray(begin, at));
      } catch {
        return fail(`the file is damaged: the text at byte ${begin} is not UTF-8`);
      }
    },
  };
}
