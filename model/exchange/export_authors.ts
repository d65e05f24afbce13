/** Recursive models as folders for the authors' PyTorch code, which trains on several GPUs what outgrows one. */
import { basename, resolve } from "@std/path";
import { authorsSettings, yamlText } from "./authors_config.ts";
import { authorsLayout } from "./authors_layout.ts";
import { authorsReadme } from "./authors_readme.ts";
import { type FolderOptions, llamaFolder, writeExport } from "./export_folder.ts";

/**
 * Writes config.json, model.safetensors with that code's whole state dict, the run's YAML file, the tokenizer's files and
 * a README of how to go on. The folder's name becomes the run's.
 *
 * @throws ConfigError for a model that the code does not have or a folder that is not empty, CheckpointError for missing
 * or damaged weights.
 */
export async function exportAuthors(options: FolderOptions): Promise<void> {
  const { config, out } = options;
  // Part of commands and file names.
  const name = basename(resolve(out)).replaceAll(/[^\w.-]+/g, "-");
  const folder = `hf_models/${name}`;
  // That code runs in a folder of the run's own; the variable keeps the one it was started in.
  const settings = authorsSettings(config, { name, folder: `\${oc.env:PWD}/${folder}` });
  const exported = llamaFolder(options, {
    architecture: config.router ? "MoRLlamaForCausalLM" : "LlamaForCausalLM",
    layout: authorsLayout(config),
  });
  await writeExport(options, {
    ...exported,
    texts: { [`${name}.yaml`]: yamlText(settings), "README.md": authorsReadme(config, { name, folder }) },
  });
}
