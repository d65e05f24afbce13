import { Command } from "@cliffy/command";
import { openCheckpoint } from "../model/files/checkpoint_source.ts";
import { importModel } from "../model/exchange/import_model.ts";
import { convertVisibly, tokenizerIfAny } from "./conversion.ts";
import { storedDtype } from "./dtype_flags.ts";
import { openTerminal } from "./terminal.ts";

interface ImportFlags {
  readonly out: string;
  readonly dtype?: string | undefined;
  readonly quiet?: boolean | undefined;
}

const DTYPES = ["f32", "f16"] as const;

/** `mor import`: a model of another program as a checkpoint of this one. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function importCommand(): Command<any> {
  return new Command()
    .description(
      "Write a model of another program as a checkpoint, and print where it is: a GGUF file, a Hugging Face folder, or " +
        "a folder of the authors' PyTorch code. Such models also run as they are; a checkpoint can be trained on.",
    )
    .arguments("<model:string>")
    .option("--out <folder:file>", "Folder of the checkpoint.", { required: true })
    .option(
      "--dtype <format:string>",
      `Write matrices as ${
        DTYPES.join(" or ")
      }; as the model has them, or f32 where it has other blocks than q8_0 ` +
        "and q4_0, unless given.",
    )
    .example("A GGUF file", "mor import SmolLM2.gguf --out smollm2")
    .example("Back from PyTorch", "mor import results/pretrain/my-model --out my-model")
    .action((flags: ImportFlags, model: string) => run(flags, model));
}

async function run({ out, dtype: flag, quiet }: ImportFlags, model: string): Promise<void> {
  const dtype = storedDtype(flag, DTYPES);
  const terminal = openTerminal({ quiet });
  const source = await openCheckpoint(model);
  const tokenizer = await tokenizerIfAny(source, { terminal });
  await convertVisibly(terminal, (onWeight) => importModel(source, { tokenizer, dtype, out, onWeight }));
  terminal.out(`${out}\n`);
}
