/** Which files of a repository are downloaded. */
import type { HubFile, Repository } from "./hub.ts";
import { TimeLimitError, withinTime } from "../time_limit.ts";
import { PullError } from "./pull_error.ts";

/** What may stand beside the weights: settings, tokenizer, chat template. */
const COMPANIONS: readonly string[] = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
  "tokenizer.model",
  "chat_template.jinja",
  "chat_template.json",
];
/** Weights under the names that `transformers` loads, whole or in shards; other names repeat them in other formats. */
const SAFETENSORS = /^model(-\d+-of-\d+)?\.safetensors$|^model\.safetensors\.index\.json$/;
const GGUF = /\.gguf$/i;
/** Pickles run code when they are loaded, so none ever comes here. */
const PICKLE = /\.(bin|pt|pth|ckpt|pkl|pickle)$/i;
/** Most time for comparing all names with the patterns. */
const MAX_MS = 1000;
/** Most names in a message. */
const NAMES_SHOWN = 20;

/**
 * The files that match a pattern; without patterns the weights (safetensors, or else the only GGUF file) and what
 * belongs to them.
 *
 * @throws PullError when there is nothing to choose, too much, or a name that leads out of the folder.
 */
export function selectFiles(
  { id, files }: Repository,
  patterns: readonly string[],
): HubFile[] {
  function fail(text: string): never {
    throw new PullError(`Cannot pull hf:${id}: ${text}`);
  }
  const usable = files.filter(({ path }) => !PICKLE.test(path));
  const selected = patterns.length > 0 ? matching(usable, { patterns, fail }) : modelFiles(usable, fail);
  const unsafe = selected.find(({ path }) => !isInside(path));
  if (unsafe) {
    const shown = unsafe.path.replaceAll(/\p{Cc}/gu, "?");
    fail(
      `its file "${shown}" would lie outside the folder, or has a name that is none here; nothing was pulled`,
    );
  }
  const names = new Map<string, string>();
  for (const { path } of selected) {
    // Some file systems know neither case nor how an accent is written.
    const key = path.normalize("NFC").toLowerCase();
    const other = names.get(key);
    if (other !== undefined) {
      fail(`its files "${other}" and "${path}" would be one file on some systems; nothing was pulled`);
    }
    names.set(key, path);
  }
  return selected;
}

/** Whether the file is one of GGUF format. */
export function isGguf({ path }: HubFile): boolean {
  return GGUF.test(path);
}

function modelFiles(files: readonly HubFile[], fail: (text: string) => never): HubFile[] {
  const safetensors = files.filter(({ path }) => SAFETENSORS.test(path));
  const gguf = files.filter(isGguf);
  if (safetensors.length === 0 && gguf.length > 1) {
    fail(`it holds ${gguf.length} GGUF files: choose with --file from ${namesOf(gguf)}`);
  }
  const weights = safetensors.length > 0 ? safetensors : gguf;
  if (weights.length === 0) {
    fail(
      "it holds neither model.safetensors nor a GGUF file (pickled weights, such as .bin, are never pulled: " +
        `they can run code); choose another model, or with --file from ${namesOf(files)}`,
    );
  }
  return [...files.filter(({ path }) => COMPANIONS.includes(path)), ...weights];
}

function matching(
  files: readonly HubFile[],
  { patterns, fail }: { patterns: readonly string[]; fail: (text: string) => never },
): HubFile[] {
  const expressions = patterns.map(expressionOf);
  /** Many stars and a long name take for ever. */
  function inTime<T>(work: () => T): T {
    try {
      return withinTime(MAX_MS, work);
    } catch (error) {
      if (!(error instanceof TimeLimitError)) throw error;
      return fail(`--file ${patterns.join(", ")}: ${error.message}; give patterns with fewer stars`);
    }
  }
  const idle = inTime(() =>
    expressions.findIndex((expression) => !files.some(({ path }) => expression.test(path)))
  );
  if (idle >= 0) {
    const pickles = PICKLE.test(patterns[idle]!)
      ? "; pickled weights are never pulled: they can run code"
      : "";
    fail(`--file ${patterns[idle]} matches none of its files: ${namesOf(files)}${pickles}`);
  }
  return inTime(() => files.filter(({ path }) => expressions.some((expression) => expression.test(path))));
}

/** As in a shell: `*` and `?` stay within a folder's name and do not begin a hidden one. */
function expressionOf(pattern: string): RegExp {
  const parts = pattern.split("/").map((part) => {
    const escaped = part.replaceAll(/[.+^${}()|[\]\\]/g, "\\$&");
    const wild = escaped.replaceAll("*", "[^/]*").replaceAll("?", "[^/]");
    return /^[*?]/.test(part) ? `(?!\\.)${wild}` : wild;
  });
  return new RegExp(`^${parts.join("/")}$`);
}

/** Names that are devices on Windows, whatever their extension. */
const DEVICE = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i;

/** Whether a path of the listing is relative, goes down only, and means the same on every system. */
function isInside(path: string): boolean {
  return path.isWellFormed() &&
    path.split("/").every((part) =>
      part !== "" && !/[\\:<>"|?*\p{Cc}]/u.test(part) && !/[. ]$/.test(part) && !DEVICE.test(part)
    );
}

function namesOf(files: readonly HubFile[]): string {
  const names = files.slice(0, NAMES_SHOWN).map(({ path }) => path.replaceAll(/\p{Cc}/gu, "?"));
  const more = files.length - names.length;
  return (names.join(", ") || "none") + (more > 0 ? ` and ${more} more` : "");
}
