/** Texts taken word by word have the tokens that the package makes of the whole. */
import { assertEquals, assertThrows } from "@std/assert";
import { DataError } from "../../../model/text/documents.ts";
import { openGguf } from "../../../model/files/gguf_file.ts";
import { ggufTokenizer } from "../../../model/text/gguf_tokenizer.ts";
import type { Tokenizer } from "../../../model/text/tokenizer.ts";
import { jsonTokenizer, type TokenizerFiles } from "../../../model/text/tokenizer_json.ts";
import { mixedLines } from "../../support/mixed_text.ts";
import { createRandom } from "../../support/random.ts";
import { type Change, fixtureFiles } from "../../support/tokenizer_fixture.ts";

const lines = mixedLines({ count: 300, seed: 5 });

/** The tokenizer, and the same with a token that takes spaces, so that it is left to the package. */
function both(files: TokenizerFiles): { byWords: Tokenizer; whole: Tokenizer } {
  // deno-lint-ignore no-explicit-any -- a tokenizer.json
  const json = structuredClone(files.tokenizer) as any;
  const id = jsonTokenizer(files).vocabSize;
  json.added_tokens.push({ ...json.added_tokens[0], id, content: "<no text has this>", lstrip: true });
  return { byWords: jsonTokenizer(files), whole: jsonTokenizer({ ...files, tokenizer: json }) };
}

function assertSame(files: TokenizerFiles, texts: readonly string[]): void {
  const { byWords, whole } = both(files);
  for (const text of texts) assertSameTokens(byWords.encode(text), whole.encode(text), text);
}

/** Names the first difference: showing all of long lists takes minutes. */
function assertSameTokens(met: readonly number[], wanted: readonly number[], text: string): void {
  const place = wanted.findIndex((id, i) => id !== met[i]);
  assertEquals([met.length, place], [wanted.length, -1], text.slice(0, 200));
}

function added(content: string, index: number): Record<string, unknown> {
  const rest = { single_word: false, lstrip: false, rstrip: false, normalized: true, special: false };
  return { id: 300 + index, content, ...rest };
}

const LLAMA_3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" +
  " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const changes: Readonly<Record<string, Change>> = {
  "SmolLM2's digits and words": () => {},
  "digits in groups": (json) => json.pre_tokenizer.pretokenizers[0].individual_digits = false,
  "GPT-2's words": (json) => json.pre_tokenizer = json.pre_tokenizer.pretokenizers[1],
  "no words": (json) => json.pre_tokenizer = { type: "ByteLevel", add_prefix_space: false, use_regex: false },
  "Llama 3's words, taken as they are in the vocabulary": (json) => {
    json.model.ignore_merges = true;
    json.pre_tokenizer.pretokenizers = [
      { type: "Split", pattern: { Regex: LLAMA_3 }, behavior: "Isolated", invert: false },
      { type: "ByteLevel", add_prefix_space: false, use_regex: false },
    ];
  },
  "words that may be empty, and that look back": (json) => {
    json.pre_tokenizer.pretokenizers[0] = {
      type: "Split",
      pattern: { Regex: "(?<=[aeiou ])|t?" },
      behavior: "Isolated",
      invert: false,
    };
  },
  "added tokens inside others, with spaces and half a character": (json) => {
    json.added_tokens.push(...["<|im", " the ", "the q", "\n\n", "\ud83d", "[^]]"].map(added));
    json.added_tokens.push({ ...added("e", 0), id: json.model.vocab.e });
  },
  "bytes without a token": (json) => {
    json.model.unk_token = "<unk>";
    json.model.vocab["<unk>"] = json.model.vocab.Q;
    delete json.model.vocab.Q;
  },
};

for (const [name, change] of Object.entries(changes)) {
  Deno.test(`a byte-level tokenizer makes the same tokens word by word: ${name}`, () => {
    assertSame(fixtureFiles("byte_level", { change }), [...lines, lines.join(""), ""]);
  });
}

Deno.test("of unknown bytes side by side those of one word are taken together", () => {
  const tokenizer = jsonTokenizer(fixtureFiles("byte_level", {
    change: (json) => {
      json.model.unk_token = "<unk>";
      json.model.fuse_unk = true;
      for (const [byte, token] of [["Q", "<unk>"], ["!", "<other>"]] as const) {
        json.model.vocab[token] = json.model.vocab[byte];
        delete json.model.vocab[byte];
      }
    },
  }));
  // As Hugging Face's library has it.
  assertEquals(tokenizer.encode("QQ!!a"), [51, 51, 67]);
});

Deno.test("a text with more different words than are kept has the same tokens", () => {
  const random = createRandom(3);
  const letters = (): string =>
    String.fromCharCode(...Array.from({ length: 4 }, () => 97 + random.integer(26)));
  const words = Array.from({ length: 80_000 }, () => ` ${letters()}`);
  assertEquals(new Set(words).size > 66_000, true);
  const text = [...words, ...words.slice(0, 1000)].join("");
  const files = fixtureFiles("byte_level", { change: changes["GPT-2's words"]! });
  assertSame(files, [text]);
  const parts = Array.from(jsonTokenizer(files).encodeParts(text), (part) => Array.from(part));
  assertEquals(parts.length > 1, true);
  assertSameTokens(parts.flat(), jsonTokenizer(files).encode(text), text);
});

Deno.test("a word of millions of letters is refused in one line", () => {
  const tokenizer = jsonTokenizer(fixtureFiles("byte_level"));
  assertThrows(() => tokenizer.encode("世 " + "a".repeat(8_000_000)), DataError, "a word of millions");
});

Deno.test("a text that is too long to be merged as a whole is refused in one line", () => {
  const text = "a ".repeat(2_000_001);
  const tokenizer = jsonTokenizer(fixtureFiles("sentence_piece"));
  const error = assertThrows(() => tokenizer.encode(text), DataError, "4000002 characters");
  assertEquals(error.message.includes("\n"), false);
});

const model = Deno.env.get("MOR_TEST_SMOLLM2");

Deno.test({
  name:
    "SmolLM2's tokenizer makes the same tokens word by word (needs its GGUF file's path in MOR_TEST_SMOLLM2)",
  ignore: model === undefined,
  fn: async (): Promise<void> => {
    using file = await openGguf(model!);
    assertSame(ggufTokenizer(file.metadata, { source: model! }), [...lines, lines.join("")]);
  },
});
