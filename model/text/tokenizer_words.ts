/**
 * Tokens word by word. In byte-level tokenizers a word's tokens depend on nothing around it, and texts have the same
 * words again and again: what was found once is kept.
 */
import { TimeLimitError, withinTime } from "../time_limit.ts";
import { longWordError, ownCopy } from "./bpe_words.ts";

/** What parts a text into words. */
export interface WordRules {
  /** The tokens that are looked for first, as they stand in texts, and their ids. */
  readonly addedTokens: ReadonlyMap<string, number>;
  /** Applied one after the other: what matches is a word of its own, and so is what lies between. */
  readonly patterns: readonly RegExp[];
}

/** Most words that are kept, so that they take some tens of MB at most. */
const MAX_WORDS = 65_536;

/** Longer words hardly come again. */
const MAX_WORD_LENGTH = 64;

/**
 * Words that are looked for at a time, and time for them: usually less than a millisecond, but the patterns are a file's,
 * and `(a+)+$` takes years for a word of fifty letters.
 */
const WORDS_AT_ONCE = 256;
const MAX_MS = 1000;

/** Tokens from which they are handed on. */
const PART_LENGTH = 65_536;

/**
 * A function that turns a text into tokens, some at a time; `encodeWord` gives those of a word, `fail` is called with what
 * is wrong with the patterns.
 */
export function wordEncoder(
  { addedTokens, patterns }: WordRules,
  { encodeWord, fail }: { encodeWord: (word: string) => number[]; fail: (text: string) => never },
): (text: string) => Generator<number[], void> {
  const known = new Map<string, number[]>();
  const borders = alternatives([...addedTokens.keys()]);

  function tokensOf(word: string): number[] {
    const kept = known.get(word);
    if (kept) return kept;
    const tokens = encodeWord(word);
    if (word.length > MAX_WORD_LENGTH) return tokens;
    if (known.size >= MAX_WORDS) known.clear();
    known.set(ownCopy(word), tokens);
    return tokens;
  }

  function* encode(text: string): Generator<number[], void> {
    let part: number[] = [];
    for (const section of text.split(borders)) {
      const added = addedTokens.get(section);
      if (added !== undefined) part.push(added);
      else {
        for (const word of wordsInTime(words(section, patterns), fail)) {
          for (const token of tokensOf(word)) part.push(token);
          if (part.length < PART_LENGTH) continue;
          yield part;
          part = [];
        }
      }
    }
    yield part;
  }
  return encode;
}

/** Whether an error is what patterns end in that take too long, are too large, or make too much of a text. */
export function isOfPatterns(error: unknown): error is Error {
  return [TimeLimitError, SyntaxError, RangeError].some((kind) => error instanceof kind);
}

/** The same words; `fail` is called when looking for them takes too long. */
function* wordsInTime(
  found: Generator<string, void>,
  fail: (text: string) => never,
): Generator<string, void> {
  function take(): string[] {
    const taken: string[] = [];
    while (taken.length < WORDS_AT_ONCE) {
      const { value, done } = found.next();
      if (done) break;
      taken.push(value);
    }
    return taken;
  }
  for (let taken = [""]; taken.length > 0;) {
    try {
      taken = withinTime(MAX_MS, take);
    } catch (cause) {
      if (!isOfPatterns(cause)) throw cause;
      fail(`its patterns cannot be used on the text: ${cause.message}`);
    }
    yield* taken;
  }
}

/** Finds any of the texts, of several at one place the longest, which `String.split` then keeps. */
function alternatives(texts: readonly string[]): RegExp {
  const longestFirst = texts.toSorted((a, b) => b.length - a.length);
  return texts.length === 0 ? /(?!)/ : new RegExp(`(${longestFirst.map(RegExp.escape).join("|")})`);
}

/** Taken one by one: all words of a long text would fill the memory. */
function* words(text: string, [pattern, ...others]: readonly RegExp[]): Generator<string, void> {
  if (text === "") return;
  if (!pattern) return yield text;
  let end = 0;
  for (const { index, 0: match } of matches(text, pattern)) {
    yield* words(text.slice(end, index), others);
    yield* words(match, others);
    end = index + match.length;
  }
  yield* words(text.slice(end), others);
}

/** @throws DataError for a match that is too long. */
function* matches(text: string, pattern: RegExp): Generator<RegExpExecArray, void> {
  try {
    yield* text.matchAll(pattern);
  } catch (cause) {
    throw longWordError(cause);
  }
}
