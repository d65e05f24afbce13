/** What a model's tokens are: bytes, or what the files of a tokenizer say. */
import { join } from "@std/path";
import { ConfigError, type ModelConfig } from "../config.ts";
import { writeJson } from "../files/whole_file.ts";
import { byteTokenizer, type Tokenizer } from "./tokenizer.ts";
import { jsonTokenizer, type TokenizerFiles } from "./tokenizer_json.ts";

export type TokenizerSource = "byte" | TokenizerFiles;

/**
 * The tokenizer of a model.
 *
 * @throws CheckpointError for damaged files; ConfigError for more tokens than the model's vocabulary has.
 */
export function tokenizerFor(source: TokenizerSource, { config }: { config: ModelConfig }): Tokenizer {
  const tokenizer = source === "byte" ? byteTokenizer : jsonTokenizer(source);
  if (tokenizer.vocabSize > config.vocabSize) {
    const of = source === "byte" ? "" : ` of ${source.source}`;
    throw new ConfigError(
      `Cannot use the tokenizer${of}: it has ${tokenizer.vocabSize} tokens, the model ${config.vocabSize} (vocab_size); ` +
        "take the model's own, or a model with a larger vocabulary",
    );
  }
  return tokenizer;
}

/**
 * The least that makes `transformers` use a tokenizer.json as it is: by a Llama model's own class it would add tokens, and
 * take away spaces.
 */
const AS_IT_IS = { tokenizer_class: "PreTrainedTokenizerFast", clean_up_tokenization_spaces: false };

/** Writes what `readTokenizerFiles` reads; nothing for bytes, which config.json names. */
export async function writeTokenizerFiles(folder: string, source: TokenizerSource): Promise<void> {
  if (source === "byte") return;
  const { tokenizer, config, endTokens } = source;
  await writeJson(join(folder, "tokenizer.json"), tokenizer);
  const whole = config.tokenizer_class == null ? { ...AS_IT_IS, ...config } : config;
  await writeJson(join(folder, "tokenizer_config.json"), whole);
  if (endTokens.length > 0) {
    await writeJson(join(folder, "generation_config.json"), { eos_token_id: endTokens });
  }
}
