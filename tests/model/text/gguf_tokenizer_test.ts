import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { ggufTokenizer } from "../../../model/text/gguf_tokenizer.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import type { Tokenizer } from "../../../model/text/tokenizer.ts";
import { jsonTokenizer } from "../../../model/text/tokenizer_json.ts";
import { decodeAll } from "../../support/decode.ts";
import { fixtureFiles, fixtureLines } from "../../support/tokenizer_fixture.ts";

type Metadata = Readonly<Record<string, unknown>>;

/** Kinds of tokens. */
const [NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE] = [1, 2, 3, 4, 6];

function ggml(fields: Metadata): Metadata {
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
}

function open(fields: Metadata): Tokenizer {
  return jsonTokenizer(ggufTokenizer(ggml(fields), { source: "a.gguf" }));
}

/** The tokens of the byte-level fixture, as a GGUF file has them. */
function byteLevel(changes: Metadata = {}): Metadata {
  // deno-lint-ignore no-explicit-any -- a tokenizer.json that other tests check
  const { model } = fixtureFiles("byte_level").tokenizer as any;
  const tokens = Object.keys(model.vocab).sort((a, b) => model.vocab[a] - model.vocab[b]);
  return {
    model: "gpt2",
    pre: "smollm",
    tokens,
    token_type: tokens.map((_, id) => id < 3 ? CONTROL : NORMAL),
    merges: model.merges.map((pair: string[]) => pair.join(" ")),
    bos_token_id: 1,
    eos_token_id: 2,
    ...changes,
  };
}

const pieces = ["▁", "a", "b", "c", "ab", "bc", "▁a", "▁ab", "abc", "__proto__", "X"];
const bytes = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
);
const FIRST_PIECE = 259;

/** A SentencePiece vocabulary: three control tokens, the bytes, the pieces. */
function sentencePiece(changes: Metadata = {}): Metadata {
  return {
    model: "llama",
    tokens: ["<unk>", "<s>", "</s>", ...bytes, ...pieces],
    token_type: [
      UNKNOWN,
      CONTROL,
      CONTROL,
      ...bytes.map(() => BYTE),
      ...pieces.map((piece) => piece.length > 3 ? USER_DEFINED : NORMAL),
    ],
    scores: [0, 0, 0, ...bytes.map(() => 0), -20, -20, -20, -20, -3, -1, -5, -6, -4, 0, -20],
    ...changes,
  };
}

/** Tokens as the pieces' texts, bytes as numbers. */
function encodePieces(tokenizer: Tokenizer, text: string): string {
  const names = ["<unk>", "<s>", "</s>", ...bytes.map((_, byte) => String(byte)), ...pieces];
  return tokenizer.encode(text).map((id) => names[id]).join(" ");
}

Deno.test("a byte-level tokenizer out of a GGUF file is the one of tokenizer.json", () => {
  const tokenizer = open(byteLevel());
  for (const { text, ids, decoded } of fixtureLines("byte_level")) {
    assertEquals(tokenizer.encode(text), ids, text);
    assertEquals(decodeAll(tokenizer, ids), decoded, text);
  }
  assertEquals([tokenizer.endOfText, tokenizer.endTokens, tokenizer.vocabSize], [2, [2], 300]);
});

Deno.test("tokenizer.ggml.pre decides how texts are split, and whether a token begins them", () => {
  const digits = (pre: string, text: string): number => open(byteLevel({ pre })).encode(text).length;
  const merges = [...byteLevel().merges as string[], "1 2", "12 3", "123 4"];
  const tokens = [...byteLevel().tokens as string[], "12", "123", "1234"];
  const count = (pre: string): number =>
    open(byteLevel({ pre, tokens, merges, token_type: undefined })).encode("1234").length;
  assertEquals(["smollm", "qwen2", "gpt-2", "default"].map(count), [4, 4, 1, 2]);
  // Begin of text, 123, 4.
  assertEquals(["llama-bpe", "llama3", "llama-v3"].map(count), [3, 3, 3]);
  assertEquals(open(byteLevel({ pre: "llama-bpe" })).encode("x")[0], 1);
  assertEquals(open(byteLevel({ pre: "llama-bpe", add_bos_token: false })).encode("x").length, 1);
  assertEquals(open(byteLevel({ add_bos_token: true, add_eos_token: true })).encode("x").at(-1), 2);
  // Qwen's models know composed characters: é as one character, in two bytes.
  assertEquals([digits("qwen2", "e\u0301"), digits("smollm", "e\u0301")], [2, 3]);
});

Deno.test("SentencePiece merges by scores, has bytes for other characters and spaces before texts", () => {
  const tokenizer = open(sentencePiece());
  // bc (-1) before ab (-3): a bc; then abc (-4) before ▁a (-5).
  assertEquals(encodePieces(tokenizer, "abc"), "<s> ▁ abc");
  assertEquals(encodePieces(tokenizer, "ab ab"), "<s> ▁ab ▁ab");
  assertEquals(encodePieces(tokenizer, "é"), "<s> ▁ 195 169");
  assertEquals(encodePieces(tokenizer, "a__proto__c</s>"), "<s> ▁a __proto__ ▁ c </s>");
  const ids = tokenizer.encode(" ab é c");
  assertEquals(decodeAll(tokenizer, ids), " ab é c");
  assertEquals([tokenizer.endOfText, tokenizer.vocabSize], [2, FIRST_PIECE + pieces.length]);

  const bare = open(sentencePiece({ add_space_prefix: false, add_bos_token: false }));
  assertEquals(encodePieces(bare, "ab c"), "ab ▁ c");
  assertEquals(decodeAll(bare, bare.encode(" c")), " c");
  // Merges in the file go before scores.
  assertEquals(encodePieces(open(sentencePiece({ merges: ["a b"] })), "abc"), "<s> ▁ ab c");
});

Deno.test("end tokens and the chat template come with the tokenizer", () => {
  const metadata = {
    ...ggml(byteLevel({ eot_token_id: 0, eom_token_id: 1 })),
    "tokenizer.chat_template": "{{ bos_token }}",
  };
  const files = ggufTokenizer(metadata, { source: "a.gguf" });
  assertEquals(files.config, {
    bos_token: "<|im_start|>",
    eos_token: "<|im_end|>",
    chat_template: "{{ bos_token }}",
  });
  assertEquals(jsonTokenizer(files).endTokens, [2, 0, 1]);
});

Deno.test("chat templates with names come with the default one, and must be texts", () => {
  const templatesOf = (templates: Metadata): unknown =>
    ggufTokenizer({ ...ggml(byteLevel()), ...templates }, { source: "a.gguf" }).config.chat_template;
  const tools = { "tokenizer.chat_template.tool_use": "b", "tokenizer.chat_templates": ["tool_use"] };
  const named = { name: "tool_use", template: "b" };
  assertEquals(templatesOf({}), null);
  assertEquals(templatesOf({ ...tools, "tokenizer.chat_template": "a" }), [named, {
    name: "default",
    template: "a",
  }]);
  assertEquals(templatesOf(tools), [named]);
  for (const key of ["tokenizer.chat_template", "tokenizer.chat_template.rag"]) {
    assertThrows(() => templatesOf({ [key]: 5 }), CheckpointError, `${key} is no text`);
  }
});

Deno.test("metadata that are damaged, or describe another tokenizer, are refused in one line", () => {
  const cases: readonly (readonly [fields: Metadata, part: string])[] = [
    [byteLevel({ model: "bert" }), 'tokenizer.ggml.model is "bert"'],
    [byteLevel({ model: undefined }), "tokenizer.ggml.model is missing"],
    [
      byteLevel({ pre: "tekken" }),
      'tokenizer.ggml.pre is "tekken", known are default, gpt-2, smollm, llama-bpe',
    ],
    [byteLevel({ pre: "constructor" }), 'tokenizer.ggml.pre is "constructor"'],
    [byteLevel({ tokens: undefined }), "tokenizer.ggml.tokens is missing"],
    [byteLevel({ tokens: [] }), "tokenizer.ggml.tokens is []"],
    [byteLevel({ tokens: ["a", 5] }), "tokenizer.ggml.tokens.1 is 5"],
    [byteLevel({ tokens: ["a", "b", "a"], token_type: undefined }), '"a" more than once'],
    [byteLevel({ token_type: [1] }), "tokenizer.ggml.token_type has 1 entries for 300 tokens"],
    [byteLevel({ merges: undefined }), "tokenizer.ggml.merges is missing"],
    [byteLevel({ eos_token_id: 300 }), "tokenizer.ggml.eos_token_id is 300, but there are 300 tokens"],
    [byteLevel({ add_bos_token: 1 }), "tokenizer.ggml.add_bos_token is 1"],
    [sentencePiece({ scores: undefined }), "tokenizer.ggml.scores is missing"],
    [sentencePiece({ scores: [1] }), "tokenizer.ggml.scores has 1 entries"],
    [sentencePiece({ unknown_token_id: 999 }), "tokenizer.ggml.unknown_token_id is 999"],
  ];
  for (const [fields, part] of cases) {
    const error = assertThrows(() => open(fields), CheckpointError);
    assertStringIncludes(error.message, `Cannot use the tokenizer of a.gguf: `);
    assertStringIncludes(error.message, part);
    assertEquals(error.message.includes("\n"), false);
  }
});
