/** Parts text into words as GPT-2's tokenizer does, and counts them: merges of a byte-level BPE stay within a word. */
import { DataError } from "./documents.ts";

/**
 * A contraction's end, letters, digits or other signs, each with a space before it, or white space that the next word
 * leaves. JavaScript's `\s` is not Unicode's white space: it has U+FEFF and lacks U+0085.
 */
const WORD = new RegExp(
  String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+` +
    String.raw`|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+`,
  "gu",
);

/** A word ends here, whatever stands before and after. */
const WORD_END = /\P{White_Space}(?=\p{White_Space})/gu;

/** Least length of a piece but the last. */
const PIECE = 65_536;

/** Strings of this length and more are cut out of another as views that keep it in memory. */
const VIEW_LENGTH = 13;

/** Cuts a text into pieces that have the same words as the whole. */
export function* textPieces(text: string): Generator<string, void> {
  for (let start = 0; start < text.length;) {
    WORD_END.lastIndex = start + PIECE;
    const end = WORD_END.test(text) ? WORD_END.lastIndex : text.length;
    yield text.slice(start, end);
    start = end;
  }
}

/** Adds the words of a text to their counts, piece by piece; yields the part of the text that is done. */
export function* countWords(text: string, counts: Map<string, number>): Generator<number, void> {
  let done = 0;
  // Half a surrogate pair, as JSON can spell it, has no bytes of its own.
  for (const piece of textPieces(text.toWellFormed())) {
    for (const word of wordsOf(piece)) {
      const count = counts.get(word);
      if (count === undefined) counts.set(ownCopy(word), 1);
      else counts.set(word, count + 1);
    }
    done += piece.length;
    yield done / text.length;
  }
}

function wordsOf(piece: string): string[] {
  try {
    return piece.match(WORD)!;
  } catch (cause) {
    throw longWordError(cause);
  }
}

/** V8 matches a run of some millions of letters with a stack that overflows; other errors stay what they are. */
export function longWordError(cause: unknown): unknown {
  if (!(cause instanceof RangeError)) return cause;
  return new DataError(
    "Cannot make tokens of a text with a word of millions of characters; split the text, or make it JSONL with a " +
      "document a line",
    { cause },
  );
}

/** So that a word does not keep the text it was found in; half a surrogate pair becomes U+FFFD. */
export function ownCopy(word: string): string {
  if (word.length < VIEW_LENGTH) return word;
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(word));
}
