/** Learned vocabularies against those of Hugging Face's trainer; see `fixtures/README.md`. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import trained from "../../../fixtures/tokenizer/trained.json" with { type: "json" };
import { bpeTokenizerConfig, bpeTokenizerJson } from "../../../model/text/bpe_json.ts";
import { type BpeSettings, type BpeVocabulary, trainBpe } from "../../../model/text/bpe_trainer.ts";
import { countWords, longWordError, textPieces } from "../../../model/text/bpe_words.ts";
import { byteSymbols } from "../../../model/text/byte_symbols.ts";
import { DataError } from "../../../model/text/documents.ts";
import { jsonTokenizer } from "../../../model/text/tokenizer_json.ts";
import { corpus } from "../../support/program.ts";

const END_OF_TEXT = "<|endoftext|>";

const cases = trained.cases.map(({ vocab_size, min_frequency, special_tokens, ...rest }) => ({
  ...rest,
  settings: { vocabSize: vocab_size, minFrequency: min_frequency, specialTokens: special_tokens },
}));

function wordsOf(...texts: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const text of texts) Array.from(countWords(text, counts));
  return counts;
}

function learn(words: ReadonlyMap<string, number>, settings: Partial<BpeSettings> = {}): BpeVocabulary {
  const all = { vocabSize: 300, specialTokens: [END_OF_TEXT], minFrequency: 1, ...settings };
  const training = trainBpe(words, all);
  for (let reached = 0;;) {
    const { done, value } = training.next();
    if (done) return value;
    assert(value >= reached && value <= all.vocabSize, `the size went from ${reached} to ${value}`);
    reached = value;
  }
}

/** Merges, one a line. */
function lines({ merges }: BpeVocabulary): string {
  return merges.map((pair) => pair.join(" ")).join("\n");
}

for (const { name, text, settings, tokens, merges } of cases) {
  Deno.test(`trainBpe learns the merges that Hugging Face's trainer learns from ${name}`, async () => {
    const vocabulary = learn(wordsOf(text ?? await Deno.readTextFile(corpus)), settings);
    assertEquals(lines(vocabulary), merges);
    const made = vocabulary.merges.map((pair) => pair.join(""));
    const signs = byteSymbols().toSorted();
    assertEquals(vocabulary.tokens, [...new Set([...settings.specialTokens, ...signs, ...made])]);
    assertEquals(vocabulary.tokens.length, tokens);
  });
}

Deno.test("a learned tokenizer.json is Hugging Face's, and gives the same ids", async () => {
  const { settings, tokens } = cases[0]!;
  const vocabulary = learn(wordsOf(await Deno.readTextFile(corpus)), settings);
  const tokenizer = bpeTokenizerJson(vocabulary, settings);
  const { vocab, merges, ...model } = tokenizer.model as Record<string, unknown>;
  assertEquals<unknown>({ ...tokenizer, model }, trained.tokenizer_json);
  assertEquals(vocab, Object.fromEntries(vocabulary.tokens.map((token, id) => [token, id])));
  assertEquals(merges, vocabulary.merges);

  const { encode, endOfText, endTokens, vocabSize } = jsonTokenizer({
    // As it is read from a file.
    tokenizer: JSON.parse(JSON.stringify(tokenizer)),
    config: bpeTokenizerConfig({ endOfText: END_OF_TEXT, others: [] }),
    endTokens: [],
    source: "the test",
  });
  assertEquals({ endOfText, endTokens, vocabSize }, { endOfText: 0, endTokens: [0], vocabSize: tokens });
  assertEquals(encode(trained.text), trained.ids.split(" ").map(Number));
});

Deno.test("trainBpe ends when no pair is left, or none is frequent enough", () => {
  assertEquals(lines(learn(wordsOf("ababab"))), "a b\nab ab\nabab ab");
  assertEquals(lines(learn(wordsOf("ab"), { minFrequency: 2 })), "");
  assertEquals(lines(learn(wordsOf("ab ab"), { minFrequency: 2 })), "a b");
  assertEquals(lines(learn(wordsOf("a"))), "");
  assertEquals(learn(wordsOf("ab"), { vocabSize: 257 }).tokens.length, 257);
});

Deno.test("trainBpe measures the text in its tokens", () => {
  assertEquals(learn(wordsOf("ab ab"), { vocabSize: 257 }).bytesPerToken, 1);
  // ab, and a space with ab: five bytes.
  assertEquals(learn(wordsOf("ab ab")).bytesPerToken, 2.5);
  assertEquals(learn(wordsOf("é é"), { vocabSize: 258 }).bytesPerToken, 5 / 3);
});

Deno.test("a vocabulary does not depend on the order of the words", () => {
  const { text, settings, merges } = cases.find(({ name }) => name === "odd signs")!;
  const words = new Map([...wordsOf(text!)].toReversed());
  assertEquals(lines(learn(words, settings)), merges);
});

Deno.test("countWords parts text as GPT-2 does and adds to what was counted", () => {
  const counts = wordsOf("It's  we'll\n\n  1st\u0085x", "It's");
  const once = [" ", " we", "'ll", "\n\n ", " 1", "st", "\u0085", "x"];
  assertEquals(counts, new Map([["It", 2], ["'s", 2], ...once.map((word) => [word, 1] as const)]));
});

Deno.test("the pieces of a long text have the words of the whole", () => {
  const part = "It's 2024\n\n \t 日本語の, 👩‍🚀 \u0085 \ufeff x---an unusuallylongwordthatgoeson\u00a0.\n";
  const text = part.repeat(4000);
  const pieces = [...textPieces(text)];
  assertEquals(pieces.join(""), text);
  assertEquals(pieces.length, Math.ceil(text.length / 65_536));
  const expected = Array.from(wordsOf(part), ([word, count]) => [word, 4000 * count] as const);
  assertEquals(wordsOf(text), new Map(expected));
});

Deno.test("a word of millions of letters is refused in one line", () => {
  assertThrows(
    () => [...countWords("世 " + "a".repeat(8_000_000), new Map())],
    DataError,
    "a word of millions",
  );
  const error = new TypeError();
  assertEquals(longWordError(error), error);
});

Deno.test("countWords tells how far it is, and takes empty text and halves of surrogate pairs", () => {
  assertEquals([...countWords("", new Map())], []);
  const parts = [...countWords("a ".repeat(100_000), new Map())];
  assertEquals(parts.length, 4);
  assertEquals(parts.at(-1), 1);
  assertEquals(parts.toSorted((a, b) => a - b), parts);
  assertEquals(wordsOf("\ud83d\ud83d", "\ufffd\ufffd"), new Map([["\ufffd\ufffd", 2]]));
});
