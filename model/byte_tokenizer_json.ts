/** The byte tokenizer as Hugging Face's library reads it: tokenizer.json and tokenizer_config.json. */
import { byteTokenizer } from "./tokenizer.ts";

const END_OF_TEXT = "<|endoftext|>";

/** Bytes that byte-level BPE writes as the characters of the same code; the others are U+0100 and on, in their order. */
const isItself = (byte: number): boolean => byte > 32 && byte < 127 || byte > 160 && byte !== 173;

/** A byte-level BPE without merges whose ids are the bytes' values, and end of text. */
export function byteTokenizerJson(): Record<string, unknown> {
  let others = 0;
  const alphabet = Array.from(
    { length: 256 },
    (_, byte) => String.fromCharCode(isItself(byte) ? byte : 256 + others++),
  );
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [{
      id: byteTokenizer.endOfText,
      content: END_OF_TEXT,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    }],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(alphabet.map((character, byte) => [character, byte])),
      merges: [],
    },
  };
}

/** What tokenizer_config.json says of it. Texts start after an end of text, as in training here. */
export function byteTokenizerConfig({ maxPositions }: { maxPositions: number }): Record<string, unknown> {
  return {
    ...fastTokenizerConfig({ maxPositions }),
    bos_token: END_OF_TEXT,
    eos_token: END_OF_TEXT,
    pad_token: END_OF_TEXT,
  };
}

/** The least that makes `transformers` use a tokenizer.json as it is: by a Llama model's own class it would add tokens. */
export function fastTokenizerConfig({ maxPositions }: { maxPositions: number }): Record<string, unknown> {
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    model_max_length: maxPositions,
    clean_up_tokenization_spaces: false,
  };
}
