/**
 * Results in a JSONL file, one whole line a text: a run that is killed leaves at most the beginning of its last line, and
 * the next one goes on after the lines that are whole. A power cut may besides leave zeros where lines had been written:
 * then it goes on before the first of those.
 */
import { dirname } from "@std/path";
import { parseJson } from "../files/json_text.ts";
import { replaceFile, syncFolder, writeAll } from "../files/whole_file.ts";
import { DataError, utf8Decoder } from "./documents.ts";

/** What a result says of its prompt. */
export interface ResultKey {
  /** Place among the prompts. */
  readonly index: number;
  readonly prompt: string;
  readonly seed: number;
}

/** What a file of results holds. */
export interface DoneResults {
  readonly done: readonly ResultKey[];
  /** Bytes of its whole lines. */
  readonly bytes: number;
  /** Bytes after them: an unfinished line, and what a power cut left after a hole. */
  readonly cut: number;
}

const LINE_FEED = 10;
const OPENING_BRACE = 123;
const FIRST_PRINTABLE = 32;

const NOTHING: DoneResults = { done: [], bytes: 0, cut: 0 };

/**
 * The results that are there already; none where there is no file, or an empty one.
 *
 * @throws DataError for a file that is there and not to be gone on with, or that holds something else.
 */
export async function readResults(path: string, { resume }: { resume: boolean }): Promise<DoneResults> {
  const file = await Deno.readFile(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  });
  if (!file || file.length === 0) return NOTHING;
  if (!resume) {
    throw new DataError(
      `Cannot write ${path}: it is there already; give --resume to go on with it, or another --out`,
    );
  }
  // JSON has no such byte: from there on nothing has reached the disk for sure.
  const hole = file.indexOf(0);
  const written = hole < 0 ? file : file.subarray(0, hole);
  const lines = [...wholeLines(written)];
  const done = lines.map((line, i) => keyOf(line, { path, number: i + 1 }));
  const bytes = written.lastIndexOf(LINE_FEED) + 1;
  if (!isUnfinished(file.subarray(bytes))) {
    throw new DataError(
      `Cannot go on with ${path}: what follows its first ${bytes} bytes is no result of mor generate --prompts`,
    );
  }
  return { done, bytes, cut: file.length - bytes };
}

/** Whether bytes may be what became of results: the beginning of one, or a hole, and no byte that JSON text never has. */
function isUnfinished(bytes: Uint8Array): boolean {
  const [first] = bytes;
  return bytes.length === 0 ||
    (first === 0 || first === OPENING_BRACE) &&
      !bytes.some((byte) => byte < FIRST_PRINTABLE && byte !== 0 && byte !== LINE_FEED);
}

/** Lines with their ends; what follows the last one's may stop in the middle of a character. */
function* wholeLines(file: Uint8Array): Generator<Uint8Array> {
  let start = 0;
  for (let end = file.indexOf(LINE_FEED); end >= 0; end = file.indexOf(LINE_FEED, start)) {
    yield file.subarray(start, end + 1);
    start = end + 1;
  }
}

/** Puts the results of a file in the order of their prompts. */
export async function sortResults(path: string): Promise<void> {
  const lines = Array.from(wholeLines(await Deno.readFile(path)), (line, i) => {
    return { line, index: keyOf(line, { path, number: i + 1 }).index };
  });
  const sorted = lines.toSorted((a, b) => a.index - b.index);
  if (sorted.every((line, i) => line === lines[i])) return;
  await replaceFile(path, {
    write: async (file) => {
      for (const { line } of sorted) await writeAll(file, line);
    },
  });
}

function keyOf(line: Uint8Array, { path, number }: { path: string; number: number }): ResultKey {
  const where = `${path}:${number}`;
  const value = parseJson(utf8Decoder(path)(line), (problem) => {
    throw new DataError(`Cannot go on with ${where}: the line ${problem}`);
  }) as Partial<ResultKey> | null;
  const { index, prompt, seed } = value ?? {};
  if (Number.isInteger(index) && typeof prompt === "string" && typeof seed === "number") {
    return { index: index!, prompt, seed };
  }
  throw new DataError(`Cannot go on with ${where}: the line is no result of mor generate --prompts`);
}

/** A file that results are added to. */
export class ResultFile {
  readonly #file: Deno.FsFile;
  readonly #path: string;

  private constructor(file: Deno.FsFile, path: string) {
    this.#file = file;
    this.#path = path;
  }

  /** Opens a file, new or with results, to add more after those. */
  static async open(path: string, { bytes }: DoneResults): Promise<ResultFile> {
    const file = await Deno.open(path, { write: true, create: true });
    await file.truncate(bytes);
    await file.seek(0, Deno.SeekMode.End);
    return new ResultFile(file, path);
  }

  async write(result: Readonly<Record<string, unknown>>): Promise<void> {
    await writeAll(this.#file, new TextEncoder().encode(JSON.stringify(result) + "\n"));
  }

  /** Makes what was written survive a power cut, and closes the file. */
  async close(): Promise<void> {
    try {
      await this.#file.sync();
      await syncFolder(dirname(this.#path));
    } finally {
      this.#file.close();
    }
  }
}
