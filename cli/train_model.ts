/** What a run trains, and what its tokens are. */
import { ValidationError } from "@cliffy/command";
import { basename, dirname, join } from "@std/path";
import { readConfigFile } from "../model/files/checkpoint.ts";
import { openCheckpoint } from "../model/files/checkpoint_source.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import { presetConfig, presetNames } from "../model/presets.ts";
import { jsonTokenizer, readTokenizerFiles, type TokenizerFiles } from "../model/text/tokenizer_json.ts";
import type { TokenizerSource } from "../model/text/tokenizer_source.ts";
import { required, type ResolvedFlags } from "./train_flags.ts";

/**
 * The model's configuration; a preset takes the vocabulary of the tokenizer or checkpoint that is given.
 *
 * @throws ValidationError for a model that there is none; ConfigError or CheckpointError for files that cannot be used.
 */
export async function runConfig(
  flags: ResolvedFlags,
  { resume }: { readonly resume?: boolean | undefined },
): Promise<ModelConfig> {
  if (flags.model === undefined && resume) return await readConfigFile(join(flags.out!, "config.json"));
  const model = required(flags.model, "--model");
  const isPreset = presetNames().includes(model);
  if (!isPreset && !model.endsWith(".json")) {
    throw new ValidationError(
      `Unknown model "${model}": wanted a config.json or a preset (${
        presetNames().filter((name) => !name.includes("-")).join(", ")
      }, ` +
        "each also with -mor2 to -mor4 (expert choice), -tok2 to -tok4 (token choice), -rec2 to -rec4 or -vanilla)",
    );
  }
  const config = isPreset ? presetConfig(model) : await readConfigFile(model);
  if (!isPreset) return flags.tokenizer === undefined ? config : { ...config, tokenizer: null };
  return { ...config, ...await presetVocabulary(flags, { config, resume }) };
}

/** A run's vocabulary where no config.json says it: of the tokenizer that is given, else of the model that it starts from. */
async function presetVocabulary(
  { tokenizer, init, out }: ResolvedFlags,
  { config, resume }: { config: ModelConfig; resume?: boolean | undefined },
): Promise<Pick<ModelConfig, "tokenizer" | "vocabSize">> {
  if (!resume && tokenizer !== undefined) {
    return { tokenizer: null, vocabSize: jsonTokenizer(await tokenizerAt(tokenizer)).vocabSize };
  }
  const source = resume
    ? await readConfigFile(join(out!, "config.json"))
    : init === undefined
    ? config
    : (await openCheckpoint(init)).config;
  return { tokenizer: source.tokenizer, vocabSize: source.vocabSize };
}

/**
 * The run's tokenizer: the one that is given, else that of the checkpoint that it starts from or goes on with.
 *
 * @throws ConfigError when there is none; CheckpointError for a damaged one.
 */
export async function runTokenizer(
  { tokenizer, init, out, model }: ResolvedFlags,
  { config, isResumed }: { config: ModelConfig; isResumed: boolean },
): Promise<TokenizerSource> {
  if (config.tokenizer === "byte") return "byte";
  if (isResumed) return await readTokenizerFiles(out!);
  if (tokenizer !== undefined) return await tokenizerAt(tokenizer);
  if (init !== undefined) return await (await openCheckpoint(init)).readTokenizer();
  const folder = dirname(model ?? "");
  if (await exists(join(folder, "tokenizer.json"))) {
    return await readTokenizerFiles(folder, { eosTokenId: config.extra.eos_token_id });
  }
  throw new ConfigError(
    `Cannot train ${model}: its tokens are not bytes, and no tokenizer is given; ` +
      "give --tokenizer with a tokenizer.json, which `mor tokenizer train` makes",
  );
}

/** A tokenizer.json, with the files beside it, or the tokenizer of a checkpoint. */
async function tokenizerAt(path: string): Promise<TokenizerFiles> {
  if (path.endsWith(".json")) return await readTokenizerFiles(dirname(path), { name: basename(path) });
  const isCheckpoint = path.endsWith(".gguf") || await exists(join(path, "config.json"));
  if (!isCheckpoint && await exists(join(path, "tokenizer.json"))) return await readTokenizerFiles(path);
  if (!isCheckpoint) {
    throw new ConfigError(
      `Cannot use --tokenizer ${path}: wanted a tokenizer.json, a folder with one, a checkpoint's folder or a .gguf file; ` +
        "`mor tokenizer train` makes the first",
    );
  }
  const files = await (await openCheckpoint(path)).readTokenizer();
  if (files !== "byte") return files;
  throw new ConfigError(
    `Cannot use --tokenizer ${path}: its tokens are bytes; the presets demo and tiny have them without --tokenizer`,
  );
}

function exists(path: string): Promise<boolean> {
  return Deno.stat(path).then(() => true, () => false);
}
