/** The byte tokenizer in the form of Hugging Face's files. */
import { byteSymbols } from "./byte_symbols.ts";
import { byteTokenizer } from "./tokenizer.ts";
import type { TokenizerFiles } from "./tokenizer_json.ts";

const END_OF_TEXT = "<|endoftext|>";

/** A byte-level BPE without merges whose ids are the bytes' values, and end of text. */
function byteTokenizerJson(): Record<string, unknown> {
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
      vocab: Object.fromEntries(byteSymbols().map((symbol, byte) => [symbol, byte])),
      merges: [],
    },
  };
}

/** Its files. Texts start after an end of text, as in training here. */
export function byteTokenizerFiles({ maxPositions }: { maxPositions: number }): TokenizerFiles {
  return {
    tokenizer: byteTokenizerJson(),
    config: {
      bos_token: END_OF_TEXT,
      eos_token: END_OF_TEXT,
      pad_token: END_OF_TEXT,
      model_max_length: maxPositions,
    },
    endTokens: [],
    source: "the byte tokenizer",
  };
}
