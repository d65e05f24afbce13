/** A learned byte-level BPE in the files that Hugging Face's library reads: tokenizer.json, tokenizer_config.json. */
import type { BpeVocabulary } from "./bpe_trainer.ts";

/** What tokenizer.json says, as Hugging Face's library writes it; texts are parted into words as for GPT-2. */
export function bpeTokenizerJson(
  { tokens, merges }: Pick<BpeVocabulary, "tokens" | "merges">,
  { specialTokens }: { specialTokens: readonly string[] },
): Record<string, unknown> {
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content) => ({
      id: tokens.indexOf(content),
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
}

/** What tokenizer_config.json says: `transformers` takes tokenizer.json as it is, and decoding changes no spaces. */
export function bpeTokenizerConfig(
  { endOfText, others }: { endOfText: string; others: readonly string[] },
): Record<string, unknown> {
  return {
    tokenizer_class: "PreTrainedTokenizerFast",
    eos_token: endOfText,
    ...(others.length > 0 && { additional_special_tokens: others }),
    clean_up_tokenization_spaces: false,
  };
}
