/**
 * This program's training step beside that of jax-js, a library in TypeScript with WebAssembly and WebGPU backends, which
 * runs in a folder that the user names: `npm install @jax-js/jax@0.1.25` there. It is no package of this project.
 */
import { parseArgs } from "node:util";
import { EXIT, explainError } from "../../cli/errors.ts";
import { openDevice } from "../../gpu/device.ts";
import { count, UsageError } from "./arguments.ts";
import { compareTraining } from "./jax_js_training.ts";
import { note } from "./report.ts";

const USAGE = `usage: deno task bench jax-js --jax FOLDER
  --jax FOLDER   where \`npm install @jax-js/jax@0.1.25\` has run
  --repeats N    steps of each program that are measured (7)
  --warm-up N    steps of each before those, beside three whose losses are compared (5)
  --webgpu       runs jax-js's webgpu backend too: minutes on a software adapter
  --json         prints one object`;

/** What is to be compared. */
export interface JaxJsOptions {
  readonly folder: string;
  readonly repeats: number;
  readonly warmUp: number;
  readonly hasWebgpu: boolean;
  readonly isJson: boolean;
}

/** @throws UsageError */
export function parseJaxJsArgs(args: readonly string[]): JaxJsOptions {
  const values = parse(args);
  if (values.jax === undefined) throw new UsageError("wanted --jax FOLDER");
  return {
    folder: values.jax,
    repeats: count("repeats", values.repeats),
    warmUp: count("warm-up", values["warm-up"]),
    hasWebgpu: values.webgpu,
    isJson: values.json,
  };
}

// deno-lint-ignore explicit-function-return-type -- the options give the type
function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        "jax": { type: "string" },
        "repeats": { type: "string", default: "7" },
        "warm-up": { type: "string", default: "5" },
        "webgpu": { type: "boolean", default: false },
        "json": { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

/** Compares what the arguments say. @returns The exit code. */
export async function runJaxJs(args: readonly string[]): Promise<number> {
  try {
    const options = parseJaxJsArgs(args);
    using device = await openDevice();
    await compareTraining(device, options);
    return EXIT.done;
  } catch (error) {
    if (error instanceof UsageError) {
      note(`bench jax-js: ${error.message}\n${USAGE}`);
      return EXIT.usage;
    }
    const { code, line, isExpected } = explainError(error);
    if (!isExpected) throw error;
    note(`bench jax-js: ${line}`);
    return code;
  }
}
