/** Vanilla models as folders that Hugging Face's `transformers` loads as LlamaForCausalLM. */
import { ConfigError } from "../config.ts";
import { type FolderOptions, llamaFolder, writeExport } from "./export_folder.ts";
import { parameterTable } from "../parameters.ts";

/**
 * Writes config.json, generation_config.json, model.safetensors and the tokenizer's files. Names and shapes of the weights
 * are Hugging Face's already.
 *
 * @throws ConfigError for a model that Llama's classes cannot express or a folder that is not empty, CheckpointError for
 * missing or damaged weights.
 */
export async function exportHuggingFace(options: FolderOptions): Promise<void> {
  const { config } = options;
  if (config.recursion) {
    throw new ConfigError(
      "Cannot export a recursive model as a Llama; export it under the names of the authors' code",
    );
  }
  const layout = parameterTable(config).map((spec) => ({ spec, names: [spec.name] }));
  const folder = llamaFolder(options, { architecture: "LlamaForCausalLM", layout });
  const { bos_token_id, eos_token_id } = folder.json;
  const generation = JSON.stringify({ bos_token_id, eos_token_id }, null, 2) + "\n";
  await writeExport(options, { ...folder, texts: { "generation_config.json": generation } });
}
