/**
 * Results in a JSONL file, one whole line a text: a run that is killed leaves at most the beginning of its last line, and
 * the next one goes on after the lines that are whole.
 */
import { parseJson } from "../files/json_text.ts";
import { writeAll } from "../files/whole_file.ts";
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
  /** Bytes of an unfinished line after them. */
  readonly cut: number;
}

const LINE_FEED = 10;

const NOTHING: DoneResults = { done: [], bytes: 0, cut: 0 };

/**
 * The results that are there already; none where there is no file.
 *
 * @throws DataError for a file that is there and not to be gone on with, or that holds something else.
 */
export async function readResults(path: string, { resume }: { resume: boolean }): Promise<DoneResults> {
  const file = await Deno.readFile(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  });
  if (!file) return NOTHING;
  if (!resume) {
    throw new DataError(
      `Cannot write ${path}: it is there already; give --resume to go on with it, or another --out`,
    );
  }
  // What follows the last line's end may stop in the middle of a character.
  const bytes = file.lastIndexOf(LINE_FEED) + 1;
  const lines = utf8Decoder(path)(file.subarray(0, bytes)).split("\n").slice(0, -1);
  const done = lines.map((line, i) => keyOf(line, { where: `${path}:${i + 1}` }));
  return { done, bytes, cut: file.length - bytes };
}

function keyOf(line: string, { where }: { where: string }): ResultKey {
  const value = parseJson(line, (problem) => {
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

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /** Opens a file, new or with results, to add more after those. */
  static async open(path: string, { bytes }: DoneResults): Promise<ResultFile> {
    const file = await Deno.open(path, { write: true, create: true });
    await file.truncate(bytes);
    await file.seek(0, Deno.SeekMode.End);
    return new ResultFile(file);
  }

  async write(result: Readonly<Record<string, unknown>>): Promise<void> {
    await writeAll(this.#file, new TextEncoder().encode(JSON.stringify(result) + "\n"));
  }

  /** Makes what was written survive a power cut, and closes the file. */
  async close(): Promise<void> {
    await this.#file.sync();
    this.#file.close();
  }
}
