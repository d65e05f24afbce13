/** Tokenizers on their way into a GGUF file: the same tokens when they are read again, or refused. */
import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError } from "../../../model/config.ts";
import { ggufTokenizer } from "../../../model/text/gguf_tokenizer.ts";
import { ggufTokenizerFields } from "../../../model/text/gguf_tokenizer_fields.ts";
import {
  BYTE_LEVEL_FORMS,
  sentencePieceMerges,
  sentencePieceScores,
} from "../../../model/text/gguf_words.ts";
import { jsonTokenizer, type TokenizerFiles } from "../../../model/text/tokenizer_json.ts";
import { tinyConfig } from "../../reference/tiny_model.ts";
import { sentencePieceFiles } from "../../support/gguf_cases.ts";
import { type Change, fixtureFiles, fixtureLines } from "../../support/tokenizer_fixture.ts";

type Fields = Readonly<Record<string, unknown>>;

/** The values of the metadata; those of the tokenizer without what their keys begin with. */
function fieldsOf(files: TokenizerFiles, vocabSize = 400): Fields {
  const fields = ggufTokenizerFields(files, { config: tinyConfig({ vocabSize }) });
  return Object.fromEntries(
    Object.entries(fields).map(([key, { value }]) => [key.replace("tokenizer.ggml.", ""), value]),
  );
}

/** The files again, by way of the metadata. */
function readAgain(files: TokenizerFiles): TokenizerFiles {
  const fields = ggufTokenizerFields(files, { config: tinyConfig({ vocabSize: 400 }) });
  const metadata = Object.fromEntries(Object.entries(fields).map(([key, { value }]) => [key, value]));
  return ggufTokenizer(metadata, { source: "again" });
}

/** The byte-level fixture in another form. */
function inForm(name: string, more: Change = () => {}): TokenizerFiles {
  const { preTokenizer, normalizer, decoder, model } = BYTE_LEVEL_FORMS[name]!;
  return fixtureFiles("byte_level", {
    change: (json) => {
      Object.assign(json, { pre_tokenizer: preTokenizer, normalizer, decoder });
      Object.assign(json.model, model);
      more(json);
    },
  });
}

/** A post-processor with tokens of the byte-level fixture around a text. */
function surrounded(before: readonly string[], after: readonly string[]): unknown {
  const names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
  const special = (token: string): unknown => ({ SpecialToken: { id: token, type_id: 0 } });
  const text = { Sequence: { id: "A", type_id: 0 } };
  return {
    type: "TemplateProcessing",
    single: [...before.map(special), text, ...after.map(special)],
    pair: [],
    special_tokens: Object.fromEntries(names.map((id, i) => [id, { id, ids: [i], tokens: [id] }])),
  };
}

Deno.test("every form is known by its name, whatever it says of offsets", () => {
  for (const name of ["default", "gpt-2", "smollm", "llama-bpe", "qwen2"]) {
    assertEquals(fieldsOf(inForm(name)).pre, name);
  }
  assertEquals(fieldsOf(fixtureFiles("byte_level")).pre, "smollm");
  const offsets = inForm("gpt-2", (json) => {
    json.pre_tokenizer = { ...json.pre_tokenizer, trim_offsets: false };
    json.decoder = { ...json.decoder, trim_offsets: false };
  });
  assertEquals(fieldsOf(offsets).pre, "gpt-2");
});

Deno.test("a byte-level tokenizer makes the same tokens when it is read again", () => {
  const files = fixtureFiles("byte_level", {
    config: {
      bos_token: "<|im_start|>",
      eos_token: "<|im_end|>",
      chat_template: [{ name: "default", template: "a" }, { name: "tool_use", template: "b" }],
    },
    change: (json) => json.post_processor = surrounded(["<|im_start|>"], ["<|im_end|>"]),
  });
  const fields = fieldsOf(files, 302);
  assertEquals((fields.tokens as string[]).slice(-3).map((token) => token.slice(0, 4)), [
    "ed",
    "[PAD",
    "[PAD",
  ]);
  assertEquals((fields.token_type as number[]).slice(-3), [1, 5, 5]);
  assertEquals((fields.token_type as number[]).slice(0, 4), [3, 3, 3, 1]);
  assertEquals([fields.bos_token_id, fields.eos_token_id, fields.eot_token_id], [1, 2, 0]);
  assertEquals([fields.add_bos_token, fields.add_eos_token, fields.scores], [true, true, undefined]);
  assertEquals([fields["tokenizer.chat_template"], fields["tokenizer.chat_template.tool_use"]], ["a", "b"]);

  const again = readAgain(files);
  const chat_template = [{ name: "default", template: "a" }, { name: "tool_use", template: "b" }];
  assertEquals(again.config, { bos_token: "<|im_start|>", eos_token: "<|im_end|>", chat_template });
  const [before, after] = [jsonTokenizer(files), jsonTokenizer(again)];
  assertEquals(after.endTokens, before.endTokens);
  for (const { text, ids } of fixtureLines("byte_level")) {
    assertEquals(after.encode(text), [1, ...ids, 2], text);
    assertEquals(before.encode(text), [1, ...ids, 2], text);
  }
});

Deno.test("a token that only stands before texts is the one that begins them", () => {
  const files = fixtureFiles("byte_level", {
    change: (json) => json.post_processor = surrounded(["<|im_start|>"], []),
  });
  const { bos_token_id, eos_token_id, add_bos_token, add_eos_token } = fieldsOf(files);
  assertEquals([bos_token_id, eos_token_id, add_bos_token, add_eos_token], [1, 0, true, false]);
});

Deno.test("SentencePiece's tokens get scores that merge as its list does", () => {
  const fields = fieldsOf(sentencePieceFiles, 272);
  const types = fields.token_type as number[];
  assertEquals([fields.model, fields.pre, fields.add_space_prefix], ["llama", undefined, true]);
  assertEquals([types.slice(0, 4), types.filter((type) => type === 6).length], [[2, 3, 3, 6], 256]);
  const scores = new Map(
    (fields.tokens as string[]).map((token, i) => [token, (fields.scores as number[])[i]]),
  );
  // bc, ab, abc, ▁a, ▁ab, then runs of spaces, then what is not merged.
  const order = ["bc", "ab", "abc", "▁a", "▁ab", "▁▁", "▁▁▁▁", "X", "▁"].map((token) => scores.get(token));
  assertEquals(order, [0, -1, -2, -3, -4, -5, -6, -7, -7]);
  const [before, after] = [sentencePieceFiles, readAgain(sentencePieceFiles)].map(jsonTokenizer);
  for (
    const text of ["abcabc a  b ab     c__proto__b", "", " é</s>", "▁".repeat(40), "a" + " ".repeat(11) + "b"]
  ) {
    assertEquals(after!.encode(text), before!.encode(text), text);
  }
});

Deno.test("sentencePieceScores finds none for merges that scores do not make", () => {
  const tokens = ["a", "b", "c", "ab", "bc", "abc", "aa", "aaa"];
  const canMake = (): boolean => true;
  const scores = [-9, -9, -9, -1, -2, -3, -4, -4];
  const merges = sentencePieceMerges(tokens, scores);
  assertEquals(merges.map((pair) => pair.join("+")), ["a+b", "b+c", "a+bc", "ab+c", "a+a", "a+aa", "aa+a"]);
  assertEquals(sentencePieceScores(tokens, { merges, canMake }), [-5, -5, -5, 0, -1, -2, -3, -4]);
  const without = (...places: number[]): (readonly [string, string])[] =>
    merges.filter((_, i) => !places.includes(i));
  assertEquals(sentencePieceScores(tokens, { merges: without(2), canMake }), null);
  assertEquals(sentencePieceScores(tokens, { merges: [...merges, ["c", "a"]], canMake }), null);
  // abc and bc mix, so neither goes before the other.
  const mixed = [merges[0]!, merges[2]!, merges[1]!, merges[3]!, ...merges.slice(4)];
  assertEquals(sentencePieceScores(tokens, { merges: mixed, canMake }), null);
  // Runs of one character may.
  const runs = [...merges.slice(0, 4), merges[5]!, merges[4]!, merges[6]!];
  assertEquals(sentencePieceScores(tokens, { merges: runs, canMake }), [-4, -4, -4, 0, -1, -2, -3, -3]);
  assertEquals(sentencePieceScores([], { merges: [], canMake }), []);
});

Deno.test("tokenizers that llama.cpp would use in another way are refused in one line", () => {
  const changed = (change: Change): TokenizerFiles => fixtureFiles("byte_level", { change });
  const cases: readonly (readonly [part: string, files: TokenizerFiles])[] = [
    ["no name for the way in which it splits texts", changed((json) => json.normalizer = { type: "NFKC" })],
    ["no name for the way", changed((json) => json.model.ignore_merges = true)],
    ["no name for the way", changed((json) => json.pre_tokenizer.pretokenizers[1].add_prefix_space = true)],
    ["no name for the way", changed((json) => json.pre_tokenizer.pretokenizers[1].use_regex = false)],
    ["its merges do not follow from scores of the tokens", fixtureFiles("sentence_piece")],
    ["lacks tokens for bytes", {
      ...sentencePieceFiles,
      tokenizer: JSON.parse(JSON.stringify(sentencePieceFiles.tokenizer).replaceAll('"<0x', '"<y')),
    }],
    [
      'its token "<|im_end|>" takes the spaces beside it',
      changed((json) => json.added_tokens[2].lstrip = true),
    ],
    [
      "4 tokens end a text (0, 1, 2, 3), the file has room for three",
      fixtureFiles("byte_level", { endTokens: [0, 1, 2, 3] }),
    ],
    [
      "it puts the tokens [1,1] before a text and [] after it, wanted at most bos_token (1) and eos_token (0)",
      changed((json) => json.post_processor = surrounded(["<|im_start|>", "<|im_start|>"], [])),
    ],
    [
      "it puts the tokens [] before a text and [2] after it, wanted at most bos_token (none) and eos_token (0)",
      changed((json) => json.post_processor = surrounded([], ["<|im_end|>"])),
    ],
    [
      "it puts the tokens [0] before a text and [] after it, wanted at most bos_token (1)",
      fixtureFiles("byte_level", {
        config: { bos_token: "<|im_start|>" },
        change: (json) => json.post_processor = surrounded(["<|endoftext|>"], []),
      }),
    ],
  ];
  for (const [part, files] of cases) {
    const { message } = assertThrows(() => fieldsOf(files), ConfigError, part);
    assertEquals(
      message.startsWith(`Cannot write the tokenizer of ${files.source} into a GGUF file: `),
      true,
    );
    assertEquals(message.includes("\n"), false);
  }
});
