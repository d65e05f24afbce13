/** What the exported folders have in common: Llama's config.json, the weights' file, the tokenizer's files. */
import { basename, dirname, join, resolve } from "@std/path";
import { byteTokenizerConfig, byteTokenizerJson, fastTokenizerConfig } from "./byte_tokenizer_json.ts";
import { ConfigError, type ModelConfig } from "./config.ts";
import { modelConfigToJson } from "./config_file.ts";
import { replaceFile, writeAll } from "./files.ts";
import { decodeNumbers } from "./number_formats.ts";
import type { ParameterSpec } from "./parameters.ts";
import type { TensorSource } from "./safetensors_writer.ts";
import { byteTokenizer, type Tokenizer } from "./tokenizer.ts";
import { storedFormat, storedRows, type WeightFile } from "./weight_file.ts";

/** A model to export, and where to. */
export interface ExportOptions {
  readonly config: ModelConfig;
  readonly weights: WeightFile;
  /** Null: the model brings none. */
  readonly tokenizer: Pick<Tokenizer, "endTokens"> | null;
  /** The tokenizer's files, to be copied as they are; none for the byte tokenizer. */
  readonly tokenizerFiles: readonly string[];
  /** The folder to write; made if it is not there. */
  readonly out: string;
}

const TOKENIZER = "tokenizer.json";
const TOKENIZER_CONFIG = "tokenizer_config.json";

/**
 * Makes the folder.
 *
 * @throws ConfigError when it is the one that the weights are read from.
 */
export async function makeExportFolder({ weights, out }: ExportOptions): Promise<void> {
  const source = resolve(weights.path);
  if ([source, dirname(source)].includes(resolve(out))) {
    throw new ConfigError(`Cannot export into ${out}: the checkpoint itself lies there; name another folder`);
  }
  await Deno.mkdir(out, { recursive: true });
}

/**
 * The configuration as Hugging Face's Llama classes read it; fields that they do not know they keep.
 *
 * @throws ConfigError for a model that they cannot express.
 */
export function llamaConfigJson(
  { config, weights, tokenizer }: ExportOptions,
  { architecture }: { architecture: string },
): Record<string, unknown> {
  if (config.ropeScaling?.kind === "factors") {
    throw new ConfigError(
      "Cannot export the model: its rope_scaling is a list of factors, which Hugging Face's library does not have",
    );
  }
  const { recursion, router, kv_cache, ...json } = modelConfigToJson(config);
  // What describes the weights where they came from.
  for (const field of ["quantization_config", "dtype", "kv_sharing"]) delete json[field];
  const isHalf = weights.entries.get("model.embed_tokens.weight")?.format === "f16";
  const endTokens = tokenizer?.endTokens ?? [];
  return {
    // A file that does not name these tokens means Llama 2's.
    bos_token_id: config.tokenizer === "byte" ? byteTokenizer.endOfText : null,
    eos_token_id: endTokens.length > 1 ? endTokens : endTokens[0] ?? null,
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
    ...json,
    ...(recursion ? { recursion, router, kv_cache } : {}),
    model_type: "llama",
    architectures: [architecture],
    torch_dtype: isHalf ? "float16" : "float32",
  };
}

/**
 * A weight under another name: f16 as it is stored, all other formats as f32.
 *
 * @throws CheckpointError when the weight is missing or of another shape.
 */
export function weightSource(
  weights: WeightFile,
  { spec, name }: { spec: ParameterSpec; name: string },
): TensorSource {
  const format = storedFormat(weights, spec) === "f16" ? "f16" : "f32";
  return { name, shape: spec.shape, format, data: () => exportedRows(weights, spec) };
}

async function* exportedRows(weights: WeightFile, spec: ParameterSpec): AsyncGenerator<Uint8Array> {
  for await (const { format, bytes } of storedRows(weights, spec)) {
    const isExported = format === "f16" || format === "f32";
    yield isExported ? bytes : new Uint8Array(decodeNumbers(format, bytes).buffer);
  }
}

/** Writes the tokenizer's files: copies, and what is missing for `transformers` to read them as they are meant. */
export async function writeTokenizer({ config, tokenizerFiles, out }: ExportOptions): Promise<void> {
  const maxPositions = config.maxPositionEmbeddings;
  if (config.tokenizer === "byte") {
    await writeJson(join(out, TOKENIZER), byteTokenizerJson());
    await writeJson(join(out, TOKENIZER_CONFIG), byteTokenizerConfig({ maxPositions }));
    return;
  }
  for (const path of tokenizerFiles) {
    const bytes = await Deno.readFile(path);
    await replaceFile(join(out, basename(path)), { write: (file) => writeAll(file, bytes) });
  }
  const names = new Set(tokenizerFiles.map((path) => basename(path)));
  if (names.has(TOKENIZER) && !names.has(TOKENIZER_CONFIG)) {
    await writeJson(join(out, TOKENIZER_CONFIG), fastTokenizerConfig({ maxPositions }));
  }
}

/** Writes an object as JSON text with line breaks. */
export async function writeJson(path: string, value: Record<string, unknown>): Promise<void> {
  await writeText(path, JSON.stringify(value, null, 2) + "\n");
}

export async function writeText(path: string, text: string): Promise<void> {
  await replaceFile(path, { write: (file) => writeAll(file, new TextEncoder().encode(text)) });
}
