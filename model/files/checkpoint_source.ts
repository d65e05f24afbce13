/** Opens a model wherever it comes from: this program's checkpoints, Hugging Face folders, the authors' own, GGUF files. */
import { basename, join } from "@std/path";
import { readConfig } from "./checkpoint.ts";
import { ConfigError, type ModelConfig } from "../config.ts";
import { ggufModelConfig } from "./gguf_config.ts";
import { openGguf } from "./gguf_file.ts";
import { ggufTokenizer } from "../text/gguf_tokenizer.ts";
import { OWN_TOKENIZER } from "../text/gguf_words.ts";
import { importAuthorsWeights, isAuthorsLayout } from "../exchange/import_authors.ts";
import { CheckpointError } from "./safetensors.ts";
import { holdsShards, openShards } from "./safetensors_shards.ts";
import { readTokenizerFiles } from "../text/tokenizer_json.ts";
import type { TokenizerSource } from "../text/tokenizer_source.ts";
import { areEqual, type WeightFile } from "./weight_file.ts";

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";

/** A model on disk. Nothing but its configuration has been read. */
export interface CheckpointSource {
  readonly path: string;
  readonly config: ModelConfig;
  /** @throws CheckpointError for files that are missing or damaged. */
  openWeights(): Promise<WeightFile>;
  /** @throws CheckpointError for a damaged tokenizer, ConfigError where there is none. */
  readTokenizer(): Promise<TokenizerSource>;
}

/**
 * Opens a folder with a config.json and safetensors, a GGUF file, or a folder whose only model is a GGUF file. Links in a
 * folder are followed, as every program does: Hugging Face's own cache consists of them. Names that files give of other
 * files never lead out of the folder.
 *
 * @throws CheckpointError or ConfigError for what is no model, or none that this program can run.
 */
export async function openCheckpoint(path: string): Promise<CheckpointSource> {
  const info = await Deno.stat(path).catch((cause) => {
    if (!(cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.NotADirectory)) throw cause;
    throw new CheckpointError(`Cannot load ${path}: no such file or folder`, { cause });
  });
  if (info.isFile) {
    if (path.endsWith(".gguf")) return await openGgufCheckpoint(path);
    throw new CheckpointError(
      `Cannot load ${path}: it is neither a checkpoint's folder nor a .gguf file; give the folder of its config.json`,
    );
  }
  const names = (await Array.fromAsync(Deno.readDir(path))).map(({ name }) => name);
  const ggufs = names.filter((name) => name.endsWith(".gguf")).sort();
  if (holdsShards(names) || ggufs.length === 0) return await openFolder(path);
  if (ggufs.length === 1) return await openGgufCheckpoint(join(path, ggufs[0]!));
  throw new CheckpointError(`Cannot load ${path}: it has several models, name one of ${ggufs.join(", ")}`);
}

async function openFolder(path: string): Promise<CheckpointSource> {
  const config = await readConfig(path);
  return {
    path,
    config,
    openWeights: () => openFolderWeights(path, config),
    readTokenizer: async () => {
      if (config.tokenizer === "byte") return "byte";
      const hasTokenizer = await Deno.stat(join(path, "tokenizer.json")).then(() => true, () => false);
      if (hasTokenizer) return await readTokenizerFiles(path, { eosTokenId: config.extra.eos_token_id });
      throw new ConfigError(
        `Cannot read text with ${path}: it has no tokenizer.json, and its config.json does not say "tokenizer": "byte"`,
      );
    },
  };
}

async function openFolderWeights(path: string, config: ModelConfig): Promise<WeightFile> {
  const file = await openShards(path);
  try {
    if (isAuthorsLayout(file, config)) return await importAuthorsWeights(file, config);
    await checkTiedHead(file, config);
    return file;
  } catch (error) {
    file[Symbol.dispose]();
    throw error;
  }
}

/** A model whose head is its embedding may hold it twice, but not two heads. */
async function checkTiedHead(file: WeightFile, config: ModelConfig): Promise<void> {
  if (!config.tieWordEmbeddings || !(file.entries.has(HEAD) || file.others.has(HEAD))) return;
  const shape = [config.vocabSize, config.hiddenSize];
  if (await areEqual(file, { shape, names: [EMBEDDING, HEAD] })) return;
  throw new CheckpointError(
    `Cannot load ${file.path}: tensors "${EMBEDDING}" and "${HEAD}" differ, but tie_word_embeddings is true; ` +
      "set it to false in config.json",
  );
}

async function openGgufCheckpoint(path: string): Promise<CheckpointSource> {
  using file = await openGguf(path);
  const { header, metadata } = file;
  const config = ggufModelConfig(file);
  const isByte = metadata[OWN_TOKENIZER] === "byte";
  return {
    path,
    config: isByte ? { ...config, tokenizer: "byte" } : config,
    openWeights: () => openGguf(path, { header }),
    readTokenizer: () =>
      Promise.resolve(isByte ? "byte" : ggufTokenizer(metadata, { source: basename(path) })),
  };
}
