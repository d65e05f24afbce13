/** Reading the texts of files and folders, one document at a time. */
import { oneLine } from "../files/one_line.ts";

/** Characters of a message; what is longer quotes the data. */
const MAX_MESSAGE = 1000;

/** Data that cannot be used; the message says what to do. */
export class DataError extends Error {
  override readonly name = "DataError";

  /** The message becomes one line: it may quote the data. */
  constructor(message: string, options?: ErrorOptions) {
    super(oneLine(message, { most: MAX_MESSAGE }), options);
  }
}

/** A text of the data. */
export interface Document {
  readonly text: string;
  /** Bytes that it takes up in its file, for showing how far reading has come. */
  readonly bytes: number;
}

/** Strings hold no more than half a billion characters. */
const LONGEST_TEXT_BYTES = 500_000_000;

/**
 * The documents of the files and folders, one at a time: a text file is one document, a JSONL file is read by lines.
 *
 * @throws DataError for a missing or empty file, one that is not UTF-8, a text file of more than 500 MB, or a
 * malformed JSONL line.
 */
export async function* readDocuments(
  paths: readonly string[],
  { textField }: { textField: string },
): AsyncGenerator<Document> {
  for (const path of await listFiles(paths)) {
    if (path.endsWith(".jsonl")) yield* jsonlDocuments(path, { textField });
    else yield await textDocument(path);
  }
}

/** Bytes of all files of the data. */
export async function dataBytes(paths: readonly string[]): Promise<number> {
  const files = await listFiles(paths);
  const sizes = await Promise.all(files.map(async (path) => (await Deno.stat(path)).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function textDocument(path: string): Promise<Document> {
  const { size } = await Deno.stat(path);
  if (size > LONGEST_TEXT_BYTES) {
    throw new DataError(
      `Cannot use ${path}: one text of ${size} bytes, at most ${LONGEST_TEXT_BYTES}; ` +
        "split the file, or make it JSONL with a document a line",
    );
  }
  const bytes = await Deno.readFile(path);
  if (bytes.length === 0) throw emptyFile(path);
  return { text: utf8Decoder(path)(bytes, { stream: false }), bytes: bytes.length };
}

function emptyFile(path: string): DataError {
  return new DataError(`Cannot use ${path}: the file is empty`);
}

/** Decodes bytes to text; throws DataError for what is not UTF-8. */
export function utf8Decoder(path: string): TextDecoder["decode"] {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  return (bytes, options) => {
    try {
      return decoder.decode(bytes, options);
    } catch (cause) {
      throw new DataError(`Cannot read ${path}: it is not UTF-8 text; convert it first`, { cause });
    }
  };
}

async function listFiles(paths: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  for (const path of paths) {
    const info = await Deno.stat(path).catch((cause) => {
      if (!(cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.NotADirectory)) throw cause;
      throw new DataError(`Cannot read data ${path}: no such file or folder`, { cause });
    });
    if (!info.isDirectory) {
      files.push(path);
      continue;
    }
    // A link to a file is one, too.
    const entries = (await Array.fromAsync(Deno.readDir(path))).filter(({ isDirectory }) => !isDirectory);
    const texts = entries.map(({ name }) => name).filter((name) => /\.(txt|md|jsonl)$/.test(name)).sort();
    if (texts.length === 0) {
      throw new DataError(`Cannot read data ${path}: no .txt, .md or .jsonl file in the folder`);
    }
    files.push(...texts.map((name) => `${path}/${name}`));
  }
  return files;
}

async function* jsonlDocuments(
  path: string,
  { textField }: { textField: string },
): AsyncGenerator<Document> {
  let number = 0;
  for await (const line of readLines(path)) {
    number++;
    if (line.trim() === "") continue;
    // Windows programs begin files with a mark.
    const json = number === 1 ? line.replace(/^\uFEFF/, "") : line;
    const text = jsonlText(json, { where: `${path}:${number}`, textField });
    yield { text, bytes: new TextEncoder().encode(line).length + 1 };
  }
  if (number === 0) throw emptyFile(path);
}

/**
 * Lines without their ends; none for an empty file.
 *
 * @param path `-` for stdin.
 * @throws DataError for a file that is not UTF-8.
 */
export async function* readLines(path: string): AsyncGenerator<string> {
  const decode = utf8Decoder(path === "-" ? "stdin" : path);
  const readable = path === "-" ? Deno.stdin.readable : (await Deno.open(path)).readable;
  let rest = "";
  for await (const bytes of readable) {
    const text = decode(bytes, { stream: true });
    const end = text.lastIndexOf("\n");
    // A long line comes in many parts: they are joined once.
    if (end < 0) {
      rest += text;
      continue;
    }
    yield* (rest + text.slice(0, end)).split("\n");
    rest = text.slice(end + 1);
  }
  rest += decode();
  if (rest !== "") yield rest;
}

function jsonlText(line: string, { where, textField }: { where: string; textField: string }): string {
  let value: unknown;
  try {
    value = JSON.parse(line)?.[textField];
  } catch {
    throw new DataError(`Cannot read ${where}: the line is not JSON`);
  }
  if (typeof value === "string") return value;
  throw new DataError(`Cannot read ${where}: no text under "${textField}"; name it by --text-field`);
}
