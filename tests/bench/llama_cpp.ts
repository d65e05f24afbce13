/**
 * This program beside llama.cpp, which runs through node-llama-cpp in a folder that the user names:
 * `npm install node-llama-cpp@3.22.1` there. It is no package of this project, as it takes more than all others.
 */
import { parseArgs } from "node:util";
import { EXIT, explainError } from "../../cli/errors.ts";
import { tuneDevice } from "../../cli/tuning.ts";
import { openDevice } from "../../gpu/device.ts";
import { count, UsageError } from "./arguments.ts";
import { compareAgreement } from "./llama_cpp_agreement.ts";
import { compareSpeed, FORMATS } from "./llama_cpp_speed.ts";
import { note } from "./report.ts";

const USAGE = `usage: deno task bench llama-cpp MODEL.gguf --node-llama-cpp FOLDER --text FILE
       deno task bench llama-cpp MODEL.gguf --node-llama-cpp FOLDER --speed
  --node-llama-cpp FOLDER  where \`npm install node-llama-cpp@3.22.1\` has run
  --text FILE              compares logits over this text, and the first greedy tokens
  --positions N            tokens of it to compare (500)
  --speed                  compares tokens/s by format
  --prompt N, --tokens N   lengths of the prompt (128) and of what is generated (16)
  --sequences N            texts at once (8)
  --formats LIST           some of f32,f16,q8_0,q4_0 (all)
  --repeats N              times that everything is measured (3)
  --cpu-only               leaves llama.cpp's Vulkan backend out
  --json                   prints one object`;

/** What is to be compared. */
export interface LlamaCppOptions {
  readonly model: string;
  readonly folder: string;
  /** Null to compare speeds. */
  readonly text: string | null;
  readonly positions: number;
  readonly prompt: number;
  readonly tokens: number;
  readonly sequences: number;
  readonly repeats: number;
  readonly formats: typeof FORMATS;
  readonly hasVulkan: boolean;
  readonly isJson: boolean;
}

/** @throws UsageError */
export function parseLlamaCppArgs(args: readonly string[]): LlamaCppOptions {
  const { values, positionals } = parse(args);
  const [model, ...others] = positionals;
  const folder = values["node-llama-cpp"];
  if (model === undefined || others.length > 0) {
    throw new UsageError(`wanted one GGUF file, met ${positionals.length}`);
  }
  if (folder === undefined) throw new UsageError("wanted --node-llama-cpp FOLDER");
  if ((values.text === undefined) !== values.speed) {
    throw new UsageError("wanted either --text FILE or --speed");
  }
  const { positions, prompt, tokens, sequences, repeats } = values;
  return {
    model,
    folder,
    text: values.text ?? null,
    positions: count("positions", positions),
    prompt: count("prompt", prompt),
    tokens: count("tokens", tokens),
    sequences: count("sequences", sequences),
    repeats: count("repeats", repeats),
    formats: values.formats.split(",").map(formatOf),
    hasVulkan: !values["cpu-only"],
    isJson: values.json,
  };
}

function formatOf(name: string): typeof FORMATS[number] {
  const format = FORMATS.find((known) => known === name);
  if (!format) throw new UsageError(`--formats has "${name}", wanted some of ${FORMATS.join(",")}`);
  return format;
}

// deno-lint-ignore explicit-function-return-type -- the options give the type
function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: true,
      options: {
        "node-llama-cpp": { type: "string" },
        "text": { type: "string" },
        "positions": { type: "string", default: "500" },
        "speed": { type: "boolean", default: false },
        "prompt": { type: "string", default: "128" },
        "tokens": { type: "string", default: "16" },
        "sequences": { type: "string", default: "8" },
        "repeats": { type: "string", default: "3" },
        "formats": { type: "string", default: FORMATS.join(",") },
        "cpu-only": { type: "boolean", default: false },
        "json": { type: "boolean", default: false },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** Compares what the arguments say. @returns The exit code. */
export async function runLlamaCpp(args: readonly string[]): Promise<number> {
  try {
    const options = parseLlamaCppArgs(args);
    const { text } = options;
    using device = await openDevice();
    await tuneDevice(device, { terminal: { note } });
    if (text === null) await compareSpeed(device, options);
    else await compareAgreement(device, { ...options, text });
    return EXIT.done;
  } catch (error) {
    if (error instanceof UsageError) {
      note(`bench llama-cpp: ${error.message}\n${USAGE}`);
      return EXIT.usage;
    }
    const { code, line, isExpected } = explainError(error);
    if (!isExpected) throw error;
    note(`bench llama-cpp: ${line}`);
    return code;
  }
}
