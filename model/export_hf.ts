/** Vanilla models as folders that Hugging Face's `transformers` loads as LlamaForCausalLM. */
import { join } from "@std/path";
import { ConfigError } from "./config.ts";
import {
  type ExportOptions,
  llamaConfigJson,
  makeExportFolder,
  weightSource,
  writeJson,
  writeTokenizer,
} from "./export_folder.ts";
import { parameterTable } from "./parameters.ts";
import { writeSafetensors } from "./safetensors_writer.ts";

/**
 * Writes config.json, generation_config.json, model.safetensors (f16 as stored, all else f32) and the tokenizer's files.
 * Names and shapes of the weights are Hugging Face's already.
 *
 * @throws ConfigError for a model that Llama's classes cannot express, CheckpointError for missing or damaged weights.
 */
export async function exportHuggingFace(options: ExportOptions): Promise<void> {
  const { config, weights, out } = options;
  if (config.recursion) {
    throw new ConfigError(
      "Cannot export a recursive model as a Llama; export it under the names of the authors' code",
    );
  }
  const json = llamaConfigJson(options, { architecture: "LlamaForCausalLM" });
  const tensors = parameterTable(config).map((spec) => weightSource(weights, { spec, name: spec.name }));
  await makeExportFolder(options);
  await writeJson(join(out, "config.json"), json);
  const { bos_token_id, eos_token_id } = json;
  await writeJson(join(out, "generation_config.json"), { bos_token_id, eos_token_id });
  await writeTokenizer(options);
  await writeSafetensors(join(out, "model.safetensors"), { tensors, metadata: { format: "pt" } });
}
