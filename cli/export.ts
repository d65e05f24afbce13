import { Command, ValidationError } from "@cliffy/command";
import { openCheckpoint } from "../model/files/checkpoint_source.ts";
import type { ModelConfig } from "../model/config.ts";
import { exportAuthors } from "../model/exchange/export_authors.ts";
import type { FolderOptions } from "../model/exchange/export_folder.ts";
import { exportGguf } from "../model/exchange/export_gguf.ts";
import { exportHuggingFace } from "../model/exchange/export_hf.ts";
import { convertVisibly, tokenizerIfAny } from "./conversion.ts";
import { storedDtype } from "./dtype_flags.ts";
import { openTerminal } from "./terminal.ts";

interface ExportFlags {
  readonly format: string;
  readonly out: string;
  readonly dtype?: string | undefined;
  readonly quiet?: boolean | undefined;
}

/** A way to write a model, but for its matrices' format, and a few words on what comes out. */
interface Exporter {
  readonly write: (model: Omit<FolderOptions, "dtype">) => Promise<void>;
  readonly describe: (config: ModelConfig) => string;
}

/** What matrices can be. */
const FOLDER_DTYPES = ["f32", "f16"] as const;
const GGUF_DTYPES = ["f32", "f16", "q8_0", "q4_0"] as const;

/** `mor export`: a checkpoint in the form that other programs read. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function exportCommand(): Command<any> {
  return new Command()
    .description(
      "Write a checkpoint in the form that other programs read, and print where it is. hf is a folder for Hugging " +
        "Face's transformers, or of a recursive model for the authors' PyTorch code; gguf is a file for llama.cpp, of " +
        "models without recursion.",
    )
    .arguments("<checkpoint:string>")
    .option("--format <name:string>", "hf or gguf.", { required: true })
    .option("--out <path:file>", "Folder to write; with gguf the file.", { required: true })
    .option(
      "--dtype <format:string>",
      `Write matrices as ${FOLDER_DTYPES.join(", ")}, with gguf also ${
        GGUF_DTYPES.slice(2).join(", ")
      }; as the ` +
        "checkpoint has them, or f32 where the new form has no such format, unless given.",
    )
    .example("For transformers", "mor export my-model --format hf --out my-model-hf")
    .example("For llama.cpp", "mor export my-model --format gguf --dtype q8_0 --out my-model.gguf")
    .action((flags: ExportFlags, checkpoint: string) => run(flags, checkpoint));
}

async function run(flags: ExportFlags, checkpoint: string): Promise<void> {
  const { write, describe } = exporterOf(flags);
  const { out, quiet } = flags;
  const terminal = openTerminal({ quiet });
  const source = await openCheckpoint(checkpoint);
  const { config } = source;
  using weights = await source.openWeights();
  terminal.note(describe(config));
  const tokenizer = await tokenizerIfAny(source, { terminal });
  await convertVisibly(terminal, (onWeight) => write({ config, weights, tokenizer, out, onWeight }));
  terminal.out(`${out}\n`);
}

function exporterOf({ format, dtype: flag }: ExportFlags): Exporter {
  switch (format) {
    case "hf": {
      const dtype = storedDtype(flag, FOLDER_DTYPES);
      return {
        write: (model) =>
          model.config.recursion
            ? exportAuthors({ ...model, dtype })
            : exportHuggingFace({ ...model, dtype }),
        describe: ({ recursion }) =>
          recursion
            ? "hf: for the authors' PyTorch code, see its README.md"
            : "hf: for transformers, as LlamaForCausalLM",
      };
    }
    case "gguf": {
      const dtype = storedDtype(flag, GGUF_DTYPES);
      return {
        write: (model) => exportGguf({ ...model, dtype }),
        describe: () => "gguf: for llama.cpp, as a Llama model",
      };
    }
    default:
      throw new ValidationError(`--format is "${format}", wanted hf or gguf`);
  }
}
