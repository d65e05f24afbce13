/** What the folders have in common that models are written into: a place without a model, and words about the weights. */
import { BLOCK_LENGTH } from "../../gpu/packed_matrix.ts";
import type { CheckpointSource } from "./checkpoint_source.ts";
import { ConfigError, type ModelConfig } from "../config.ts";
import type { SafetensorsFormat } from "./safetensors_writer.ts";
import type { TokenizerSource } from "../text/tokenizer_source.ts";

/** Files of weights, whoever wrote them. */
const WEIGHTS = /\.(safetensors|safetensors\.index\.json|bin|gguf)$/;

/**
 * Makes a folder for a model, if it is not there.
 *
 * @throws ConfigError when a model is in it.
 */
export async function makeModelFolder(folder: string): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  const names = await Array.fromAsync(Deno.readDir(folder), ({ name }) => name);
  if (names.some((name) => WEIGHTS.test(name))) {
    throw new ConfigError(`Cannot write to ${folder}: it holds a checkpoint already; name another folder`);
  }
}

/** A model's tokenizer; null if it has none, and then a copy of the model has none either. */
export async function readTokenizerIfAny(
  { readTokenizer }: CheckpointSource,
): Promise<TokenizerSource | null> {
  return await readTokenizer().catch((error) => {
    if (error instanceof ConfigError) return null;
    throw error;
  });
}

/** A configuration with Hugging Face's fields for matrices in a format; none for f32, which is what is meant without. */
export function withStoredFormat(config: ModelConfig, format: SafetensorsFormat): ModelConfig {
  const { quantization_config: _, dtype: __, torch_dtype: ___, ...extra } = config.extra;
  return { ...config, extra: { ...extra, ...formatFields(format) } };
}

function formatFields(format: SafetensorsFormat): Record<string, unknown> {
  switch (format) {
    case "f32":
      return {};
    case "f16":
      return { torch_dtype: "float16" };
    case "bf16":
      return { torch_dtype: "bfloat16" };
    default:
      return { quantization_config: { quant_method: "mor", format, block_size: BLOCK_LENGTH } };
  }
}
