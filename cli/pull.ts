import { Command, ValidationError } from "@cliffy/command";
import { join } from "@std/path";
import { formatBytes } from "../gpu/memory.ts";
import type { Hub } from "../model/exchange/hub.ts";
import { cacheFolder } from "./cache_folder.ts";
import { openProgress } from "./progress.ts";
import { openTerminal } from "./terminal.ts";
import { CACHE_PARTS } from "./written_paths.ts";

interface PullFlags {
  readonly out?: string | undefined;
  readonly file?: string[] | undefined;
  readonly quiet?: boolean | undefined;
}

const MIB = 2 ** 20;

/** `mor pull`: a model from the Hugging Face Hub into a folder. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function pullCommand(): Command<any> {
  return new Command()
    .description(
      "Download a model from the Hugging Face Hub and print where it is. Goes on where an interrupted download " +
        "stopped; what is there already is not fetched again. HF_TOKEN opens private models, HF_ENDPOINT names a mirror.",
    )
    .arguments("<model:string>")
    .option("--out <folder:file>", "Folder for the files; unless given, one in the user's cache.")
    .option(
      "--file <pattern:string>",
      "Fetch the files of this name, with * and ?, instead of what a model needs; repeatable.",
      { collect: true },
    )
    .example("A model", "mor pull hf:HuggingFaceTB/SmolLM2-135M-Instruct")
    .example("One of its GGUF files", 'mor pull hf:OWNER/NAME --file "*Q8_0.gguf"')
    .example("In one go", 'mor generate "$(mor pull hf:HuggingFaceTB/SmolLM2-135M)" -p "Call me"')
    .action((flags: PullFlags, model: string) => run(flags, model));
}

async function run({ out, file = [], quiet }: PullFlags, model: string): Promise<void> {
  // What it takes from the Hub's package and the platform loads slowly, and no other command needs it.
  const { parseSource, planPull, pullFiles } = await import("../model/exchange/pull.ts");
  const source = parseSource(model);
  if (!source) {
    throw new ValidationError(`The model is "${model}", wanted hf:OWNER/NAME or hf:OWNER/NAME@REVISION`);
  }
  const terminal = openTerminal({ quiet });
  const target = out === undefined ? { cache: modelsFolder() } : { out };
  const plan = await planPull(source, { hub: hubOf(), patterns: file, target });
  const count = `${plan.files.length} ${plan.files.length === 1 ? "file" : "files"}`;
  terminal.note(`hf:${source.id} at ${plan.repository.commit}: ${count}, ${formatBytes(plan.bytes)}`);
  const max = Math.ceil(plan.bytes / MIB);
  const progress = openProgress(terminal, { max, value: 0 });
  try {
    for await (const { path, bytes } of pullFiles(plan)) {
      progress.update(Math.floor(bytes / MIB), `MiB ${path}`);
    }
    progress.update(max, "MiB, checksums right");
  } finally {
    await progress.stop();
  }
  terminal.out(`${plan.model}\n`);
}

/** The Hub as the environment names it. */
function hubOf(): Hub {
  const endpoint = (Deno.env.get("HF_ENDPOINT") || "https://huggingface.co").replace(/\/+$/, "");
  if (!/^https?:$/.test(URL.parse(endpoint)?.protocol ?? "")) {
    throw new ValidationError(
      `HF_ENDPOINT is "${endpoint}", wanted an address such as https://huggingface.co`,
    );
  }
  const token = Deno.env.get("HF_TOKEN") || null;
  if (token !== null && !/^hf_\w+$/.test(token)) {
    throw new ValidationError("HF_TOKEN is not an access token, wanted hf_ and letters and digits");
  }
  return { endpoint, token };
}

/** Folder of all pulled models. */
function modelsFolder(): string {
  const cache = cacheFolder();
  if (cache === null) {
    throw new ValidationError("There is no cache folder: neither XDG_CACHE_HOME nor HOME is set; give --out");
  }
  return join(cache, CACHE_PARTS.models);
}
