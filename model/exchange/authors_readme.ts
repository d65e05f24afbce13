/** The README of a folder for the authors' PyTorch code: how training goes on there, and how the model comes back. */
import { authorsLayout } from "./authors_layout.ts";
import type { ModelConfig } from "../config.ts";

/** @param folder Where the exported files are to lie in the code's checkout. */
export function authorsReadme(
  config: ModelConfig,
  { name, folder }: { name: string; folder: string },
): string {
  return `# ${name}

A model for the PyTorch code of the Mixture-of-Recursions paper (arXiv 2507.10524),
github.com/raymin0223/mixture_of_recursions, exported by \`mor export\`. There it can train on several GPUs, under
Accelerate or DeepSpeed. Optimizer state is not part of the export.

| file | content |
| --- | --- |
| \`config.json\` | Llama's fields, and \`recursion\`, \`router\`, \`kv_cache\` as \`mor\` reads them on the way back |
| \`model.safetensors\` | the weights under that code's names, all copies of shared ones |
| \`${name}.yaml\` | the run's settings for \`conf/pretrain\` |
| \`tokenizer*.json\` | the tokenizer, if the model has one |

## Train

${trainingSteps(config, { name, folder })}
## Bring it back

\`mor import results/pretrain/${name} --out ${name}\` reads \`config.json\` and \`model.safetensors\`. Under Accelerate that code saves
\`pytorch_model.bin\` instead; this makes a \`model.safetensors\` of it:

\`\`\`python
import torch
from safetensors.torch import save_file

weights = torch.load("pytorch_model.bin", map_location="cpu")
copies = {name: weight.clone().contiguous() for name, weight in weights.items()}
save_file(copies, "model.safetensors", {"format": "pt"})
\`\`\`

If you change \`recursive\`, \`kv_sharing\` or \`mor\` in \`${name}.yaml\`, change \`recursion\`, \`kv_cache\` and \`router\` in
\`config.json\` too.

## Names

| \`mor\` | that code |
| --- | --- |
${nameRows(config)}`;
}

function trainingSteps(
  { router, tieWordEmbeddings }: ModelConfig,
  { name, folder }: { name: string; folder: string },
): string {
  const steps = [
    `Check out that code${
      router?.kind === "expert_choice"
        ? " at commit 82c97f2 or later: before it, expert choice did not share the attention's weights"
        : ""
    }. It runs with \`transformers\` 4.53.2; not every version has what it imports. Copy this folder to
   \`${folder}\` there, and \`${name}.yaml\` to \`conf/pretrain/\`.`,
    `Add the tokenizer to the table in \`util/tokenizer.py\`; it needs a \`pad_token\` in \`tokenizer_config.json\`:

   \`\`\`python
   "mor": AutoTokenizer.from_pretrained(os.path.join(os.path.dirname(__file__), "../${folder}")),
   \`\`\``,
    router && `Load the weights in \`pretrain.py\`, before \`print_trainable_parameters(model)\`:

   \`\`\`python
       from safetensors.torch import load_file
       model.load_state_dict(load_file(os.path.join(cfg.model_name_or_path, "model.safetensors")))
   \`\`\``,
    !router && tieWordEmbeddings &&
    `Tie the head in \`pretrain.py\`, before \`print_trainable_parameters(model)\`, which that code does not for this
   kind of model:

   \`\`\`python
       model.lm_head.weight = model.model.embed_tokens.weight
   \`\`\``,
    `Set the data, batch size, learning rate and number of steps in \`${name}.yaml\`; they are those of that code's
   example.`,
    `Start one of the two in the checkout's folder:

   \`\`\`sh
   # DeepSpeed
   deepspeed --include localhost:0,1,2,3 --no_local_rank --master_port 25720 pretrain.py --config-name ${name}

   # Accelerate
   CUDA_VISIBLE_DEVICES=0,1,2,3 accelerate launch --config_file acc_configs/default_config.yaml \\
     --main_process_port 25720 pretrain.py --config-name ${name}
   \`\`\``,
  ];
  return steps.filter((step) => typeof step === "string").map((step, i) => `${i + 1}. ${step}\n`).join("");
}

/** A row for each layer, and for each weight outside of them. */
function nameRows(config: ModelConfig): string {
  const isLayerWeight = /^model\.layers\./;
  const marker = ".input_layernorm.weight";
  return authorsLayout(config)
    .filter(({ spec: { name } }) => !isLayerWeight.test(name) || name.endsWith(marker))
    .map(({ spec, names }) => {
      const shown = [spec.name, ...names].map((name) => `\`${name.replace(marker, ".*")}\``);
      return `| ${shown[0]} | ${shown.slice(1).join(", ")} |\n`;
    })
    .join("");
}
