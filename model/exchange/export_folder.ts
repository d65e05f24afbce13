/** What the exported folders have in common: Llama's config.json, the weights' file, the tokenizer's files. */
import { join } from "@std/path";
import { byteTokenizerFiles } from "../text/byte_tokenizer_json.ts";
import { ConfigError, type ModelConfig } from "../config.ts";
import { modelConfigToJson } from "../config_file.ts";
import {
  announced,
  type ConversionProgress,
  convertedFormats,
  convertedRows,
} from "../files/convert_weights.ts";
import { writeJson, writeText } from "../files/whole_file.ts";
import { makeModelFolder } from "../files/model_folder.ts";
import type { NumberFormat } from "../files/number_formats.ts";
import type { ParameterSpec } from "../parameters.ts";
import { type SafetensorsFormat, type TensorSource, writeSafetensors } from "../files/safetensors_writer.ts";
import { byteTokenizer } from "../text/tokenizer.ts";
import { tokenizerFor, type TokenizerSource, writeTokenizerFiles } from "../text/tokenizer_source.ts";
import type { WeightFile } from "../files/weight_file.ts";

/** A model to export, and where to. */
export interface ExportOptions<Dtype extends NumberFormat> {
  readonly config: ModelConfig;
  readonly weights: WeightFile;
  /** Null: the model brings none. */
  readonly tokenizer: TokenizerSource | null;
  /** The format of matrices. Null: as they are stored, where the target has that format, else f32. */
  readonly dtype: Dtype | null;
  /** What to write; folders on the way there are made. */
  readonly out: string;
  /** Called when a tensor's turn comes. */
  readonly onWeight?: (progress: ConversionProgress) => void;
}

/** A folder to export into. */
export type FolderOptions = ExportOptions<"f32" | "f16">;

/** A folder's content but for what only some of them have. */
export interface ExportedFolder {
  /** Of config.json. */
  readonly json: Readonly<Record<string, unknown>>;
  /** Of model.safetensors. */
  readonly tensors: readonly TensorSource[];
}

/**
 * Llama's configuration and weights.
 *
 * @param layout Each weight with its names in the file.
 * @throws ConfigError for a model that Llama's classes cannot express, CheckpointError for missing or damaged weights.
 */
export function llamaFolder(
  options: FolderOptions,
  { architecture, layout }: {
    architecture: string;
    layout: readonly { readonly spec: ParameterSpec; readonly names: readonly string[] }[];
  },
): ExportedFolder {
  const { config, weights, dtype } = options;
  if (config.ropeScaling?.kind === "factors") {
    throw new ConfigError(
      "Cannot export the model: its rope_scaling is a list of factors, which Hugging Face's library does not have",
    );
  }
  const formats = convertedFormats(config, { file: weights, dtype, canKeep: isTorchFormat });
  const tensors = layout.flatMap(({ spec, names }) => {
    const format = formats.get(spec.name)!;
    return names.map((name) => ({
      name,
      shape: spec.shape,
      format,
      data: () => convertedRows(weights, { weight: spec, format }),
    }));
  });
  return { json: configJson(options, { architecture, format: tensors[0]!.format }), tensors };
}

const TORCH_DTYPES = { f32: "float32", f16: "float16", bf16: "bfloat16" } as const;

function isTorchFormat(format: NumberFormat): format is keyof typeof TORCH_DTYPES {
  return Object.hasOwn(TORCH_DTYPES, format);
}

/** The configuration as Hugging Face's Llama classes read it; fields that they do not know they keep. */
function configJson(
  { config, tokenizer }: FolderOptions,
  { architecture, format }: { architecture: string; format: SafetensorsFormat },
): Record<string, unknown> {
  const { recursion, router, kv_cache, ...json } = modelConfigToJson(config);
  // What describes the weights where they came from.
  for (const field of ["quantization_config", "dtype", "kv_sharing"]) delete json[field];
  const endTokens = tokenizer === null ? [] : tokenizerFor(tokenizer, { config }).endTokens;
  return {
    // A file that does not name these tokens means Llama 2's.
    bos_token_id: config.tokenizer === "byte" ? byteTokenizer.endOfText : null,
    eos_token_id: null,
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
    ...json,
    // All of them: generation_config.json may name more than the model's own config.json.
    ...(endTokens.length > 0 && { eos_token_id: endTokens.length > 1 ? endTokens : endTokens[0] }),
    ...(recursion ? { recursion, router, kv_cache } : {}),
    model_type: "llama",
    architectures: [architecture],
    torch_dtype: TORCH_DTYPES[format as keyof typeof TORCH_DTYPES],
  };
}

/**
 * Writes the folder.
 *
 * @param texts Further files by their names.
 * @throws ConfigError for a folder that is not empty, CheckpointError for numbers beyond a format's range.
 */
export async function writeExport(
  { config, tokenizer, out, onWeight }: FolderOptions,
  { json, tensors, texts }: ExportedFolder & { texts: Readonly<Record<string, string>> },
): Promise<void> {
  await makeModelFolder(out, {
    fill: async (folder) => {
      await writeSafetensors(join(folder, "model.safetensors"), {
        tensors: announced(tensors, onWeight),
        metadata: { format: "pt" },
      });
      if (tokenizer) {
        const maxPositions = config.maxPositionEmbeddings;
        const files = tokenizer === "byte" ? byteTokenizerFiles({ maxPositions }) : tokenizer;
        await writeTokenizerFiles(folder, files);
      }
      await writeJson(join(folder, "config.json"), json);
      for (const [name, text] of Object.entries(texts)) await writeText(join(folder, name), text);
    },
  });
}
