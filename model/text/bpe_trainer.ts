/**
 * Learns the vocabulary of a byte-level BPE: starting from bytes, the two tokens that stand together most often become
 * one, again and again. Words, counts and ties are those of Hugging Face's `BpeTrainer`, and so are the merges.
 */
import { type Pair, PairCounts } from "./bpe_pairs.ts";
import { byteSymbols } from "./byte_symbols.ts";

/** What to learn. */
export interface BpeSettings {
  /** Most tokens in all: special ones, the 256 bytes, merges. */
  readonly vocabSize: number;
  /** They get the first ids, in this order, so that theirs do not depend on the vocabulary's size. */
  readonly specialTokens: readonly string[];
  /** Times that a pair must occur to become a token. */
  readonly minFrequency: number;
}

/** What was learned. Tokens are written in `byteSymbols`, special ones as they are. */
export interface BpeVocabulary {
  /** By id. */
  readonly tokens: readonly string[];
  /** Pairs in the order in which those of a text are to be merged. */
  readonly merges: readonly (readonly [left: string, right: string])[];
  /** Mean bytes of a token in the text that it was learned from. */
  readonly bytesPerToken: number;
}

/** Learns from words and how often each occurs; yields the size that the vocabulary has reached after each merge. */
export function* trainBpe(
  wordCounts: ReadonlyMap<string, number>,
  { vocabSize, specialTokens, minFrequency }: BpeSettings,
): Generator<number, BpeVocabulary> {
  const symbols = byteSymbols();
  const tokens = [...new Set([...specialTokens, ...symbols.toSorted()])];
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const byteIds = symbols.map((symbol) => ids.get(symbol)!);
  const utf8 = new TextEncoder();
  const words = Array.from(
    wordCounts.keys(),
    (word) => Array.from(utf8.encode(word), (byte) => byteIds[byte]!),
  );
  const frequencies = [...wordCounts.values()];
  const length = (): number => words.reduce((sum, word, index) => sum + word.length * frequencies[index]!, 0);
  const bytes = length();
  const pairs = new PairCounts();
  for (const [index, word] of words.entries()) {
    for (let i = 1; i < word.length; i++) {
      pairs.add(word[i - 1]!, word[i]!, { word: index, by: frequencies[index]! });
    }
  }
  pairs.enqueue();
  const merged: Pair[] = [];
  while (tokens.length < vocabSize) {
    const most = pairs.takeMost();
    if (!most || most.count < Math.max(1, minFrequency)) break;
    const { left, right } = most.pair;
    const token = tokens[left]! + tokens[right]!;
    // A special token may be spelled like this one. No other can: the same bytes are always merged in the same way.
    const id = ids.get(token) ?? tokens.push(token) - 1;
    merged.push(most.pair);
    for (const index of most.words) {
      mergeWord(words[index]!, {
        left,
        right,
        id,
        change: (before, after, sign) =>
          pairs.add(before, after, { word: index, by: sign * frequencies[index]! }),
      });
    }
    pairs.enqueue();
    yield tokens.length;
  }
  return {
    tokens,
    merges: merged.map(({ left, right }) => [tokens[left]!, tokens[right]!]),
    bytesPerToken: bytes / length(),
  };
}

/** Makes a pair one token wherever it stands in a word; tells of the pairs that this ends and of those that arise. */
function mergeWord(
  word: number[],
  { left, right, id, change }: {
    left: number;
    right: number;
    id: number;
    change: (left: number, right: number, sign: 1 | -1) => void;
  },
): void {
  let kept = 0;
  for (let i = 0; i < word.length; i++, kept++) {
    if (word[i] !== left || word[i + 1] !== right) {
      word[kept] = word[i]!;
      continue;
    }
    const before = word[kept - 1];
    const after = word[i + 2];
    if (before !== undefined) {
      change(before, left, -1);
      change(before, id, 1);
    }
    if (after !== undefined) {
      change(right, after, -1);
      change(id, after, 1);
    }
    word[kept] = id;
    i++;
  }
  word.length = kept;
}
