/** Models of `fixtures/export/gguf`: small ones that llama.cpp ran, their weights set by `EXPORT_SEED`. */
import type { ModelConfig } from "../../model/config.ts";
import { ggufTokenizer } from "../../model/text/gguf_tokenizer.ts";
import type { EncodedFormat } from "../../model/files/number_formats.ts";
import type { TokenizerFiles } from "../../model/text/tokenizer_json.ts";
import type { TokenizerSource } from "../../model/text/tokenizer_source.ts";
import { tinyConfig } from "../reference/tiny_model.ts";
import { vanillaCase } from "./export_cases.ts";
import { fixtureFiles } from "./tokenizer_fixture.ts";

export interface GgufCase {
  readonly config: ModelConfig;
  readonly tokenizer: TokenizerSource;
  /** Of the f32 model's matrices in the file. */
  readonly dtype: EncodedFormat;
}

const pieces = ["▁", "a", "b", "c", "ab", "bc", "▁a", "▁ab", "abc", "__proto__", "X", "▁▁", "▁▁▁▁"];
const bytes = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
);

/** A vocabulary of SentencePiece's: three special tokens, the bytes, the pieces. */
export const sentencePieceFiles: TokenizerFiles = ggufTokenizer({
  "tokenizer.ggml.model": "llama",
  "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", ...bytes, ...pieces],
  "tokenizer.ggml.token_type": [
    ...[2, 3, 3],
    ...bytes.map(() => 6),
    ...pieces.map((piece) => piece === "__proto__" ? 4 : 1),
  ],
  // Runs of spaces have one score, as Llama 2's.
  "tokenizer.ggml.scores": [
    ...[0, 0, 0],
    ...bytes.map(() => 0),
    ...[-20, -20, -20, -20, -3, -1, -5, -6, -4, 0, -20, -9, -9],
  ],
}, { source: "a model" });

const wide = { hiddenSize: 64, intermediateSize: 96, numAttentionHeads: 4, numKeyValueHeads: 2, headDim: 16 };

export const ggufCases: Readonly<Record<string, GgufCase>> = {
  bytes: { config: vanillaCase, tokenizer: "byte", dtype: "f32" },
  // Rows of the vocabulary without a token, a head of its own, rotary factors, a chat template.
  byte_level: {
    config: tinyConfig({
      vocabSize: 304,
      tieWordEmbeddings: false,
      numHiddenLayers: 2,
      ropeScaling: {
        kind: "llama3",
        factor: 8,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositionEmbeddings: 16,
      },
      ...wide,
    }),
    tokenizer: fixtureFiles("byte_level", {
      config: {
        bos_token: "<|im_start|>",
        eos_token: "<|im_end|>",
        chat_template: "{{ messages[0].content }}",
      },
    }),
    dtype: "f16",
  },
  sentence_piece: {
    config: tinyConfig({ vocabSize: 272, ropeScaling: { kind: "linear", factor: 2 }, ...wide }),
    tokenizer: sentencePieceFiles,
    dtype: "q8_0",
  },
  yarn: {
    config: {
      ...vanillaCase,
      ...wide,
      ropeScaling: {
        kind: "yarn",
        factor: 4,
        originalMaxPositionEmbeddings: 16,
        betaFast: 32,
        betaSlow: 1,
        truncate: true,
        attentionFactor: 1.5,
      },
    },
    tokenizer: "byte",
    dtype: "q4_0",
  },
};
