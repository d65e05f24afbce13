/** The byte tokenizer in the form of Hugging Face's files. */
import { bpeTokenizerJson } from "./bpe_json.ts";
import { byteSymbols } from "./byte_symbols.ts";
import type { TokenizerFiles } from "./tokenizer_json.ts";

const END_OF_TEXT = "<|endoftext|>";

/**
 * A byte-level BPE without merges, whose ids are the bytes' values and then end of text. Texts start after one, as in
 * training here.
 */
export function byteTokenizerFiles({ maxPositions }: { maxPositions: number }): TokenizerFiles {
  const tokens = [...byteSymbols(), END_OF_TEXT];
  return {
    tokenizer: bpeTokenizerJson({ tokens, merges: [] }, { specialTokens: [END_OF_TEXT] }),
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
