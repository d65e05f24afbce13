import { Command, ValidationError } from "@cliffy/command";
import { z } from "zod";
import {
  forwardCausal,
  type ForwardInput,
  type ForwardResult,
  forwardTopK,
  greedyContinuation,
} from "../model/forward.ts";
import { ConfigError } from "../model/config.ts";
import { loadModel } from "./session.ts";
import { openTerminal } from "./terminal.ts";

interface ForwardFlags {
  readonly ids: string;
  readonly routing: string;
  readonly greedy?: number | undefined;
  readonly gradients?: string | undefined;
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

const ROUTINGS = ["causal", "top-k"];

/** `mor forward`: one pass over given token ids, for checking against other implementations. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function forwardCommand(): Command<any> {
  return new Command()
    .description("Run given token ids through a model: logits, loss terms, chosen positions, gradients.")
    .arguments("<checkpoint:string>")
    .option(
      "--ids <file:string>",
      'JSON: {"input_ids": [[...]], "targets": [[...]]}; targets are optional.',
      {
        required: true,
      },
    )
    .option("--routing <how:string>", "causal (as in generation) or top-k (as in training).", {
      default: "top-k",
    })
    .option("--greedy <n:integer>", "Continue the first row by n tokens, causally and greedily.")
    .option("--gradients <file:string>", "Write the gradients of the total loss, under the weights' names.")
    .option("--json", "Print one JSON object.")
    .example("Logits and losses", "mor forward my-model --ids case.json --json")
    .action((flags: ForwardFlags, checkpoint: string) => run(flags, checkpoint));
}

const rows = z.array(z.array(z.int().nonnegative()).min(1)).min(1);
const idsSchema = z.strictObject({ input_ids: rows, targets: rows.optional() });

async function run(flags: ForwardFlags, checkpoint: string): Promise<void> {
  if (!ROUTINGS.includes(flags.routing)) {
    throw new ValidationError(`--routing is "${flags.routing}", wanted ${ROUTINGS.join(" or ")}`);
  }
  if (flags.gradients && flags.routing !== "top-k") {
    throw new ValidationError("--gradients needs --routing top-k: training routes by top-k");
  }
  const terminal = openTerminal(flags);
  const { device, config, layout, weights } = await loadModel(checkpoint, { terminal });
  const input = await readInput(flags.ids, { vocabSize: config.vocabSize });
  if (flags.gradients && input.targets === null) {
    throw new ValidationError(`--gradients needs "targets" in ${flags.ids}`);
  }
  const model = { config, layout, weights };
  const result = flags.routing === "causal"
    ? await forwardCausal(device, { model, input })
    : await forwardTopK(device, { model, input, gradientsPath: flags.gradients ?? null });
  const greedy = flags.greedy === undefined
    ? null
    : await greedyContinuation(device, { model, prompt: input.ids[0]!, count: flags.greedy });
  const report = reportOf(result, greedy);
  terminal.out(flags.json ? JSON.stringify(report) + "\n" : summarize(report));
  device.close();
}

async function readInput(path: string, { vocabSize }: { vocabSize: number }): Promise<ForwardInput> {
  const text = await Deno.readTextFile(path);
  const parsed = idsSchema.safeParse(parseJson(text, path));
  function fail(reason: string): never {
    throw new ConfigError(`Cannot use --ids ${path}: ${reason}`);
  }
  if (!parsed.success) {
    return fail(`${parsed.error.issues[0]!.path.join(".")}: ${parsed.error.issues[0]!.message}`);
  }
  const { input_ids: ids, targets = null } = parsed.data;
  const length = ids[0]!.length;
  if (ids.some((row) => row.length !== length)) fail("rows of input_ids differ in length");
  if (targets && targets.map((row) => row.length).join() !== ids.map((row) => row.length).join()) {
    fail("targets and input_ids differ in shape");
  }
  const largest = [...ids, ...targets ?? []].flat().reduce((a, b) => Math.max(a, b), 0);
  if (largest >= vocabSize) fail(`id ${largest} is outside the vocabulary of ${vocabSize}`);
  return { ids, targets };
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new ConfigError(`Cannot use --ids ${path}: it is not JSON`, { cause });
  }
}

function reportOf(
  { losses, ...result }: ForwardResult,
  greedy: readonly number[] | null,
): Record<string, unknown> {
  return {
    logits: result.logits,
    ...(losses && {
      loss_ce: losses.ce,
      ...(losses.auxiliary !== null && { loss_auxiliary: losses.auxiliary }),
      ...(losses.z !== null && { loss_z: losses.z }),
      loss_total: losses.total,
    }),
    ...(result.selected && { selected: result.selected }),
    ...(result.depths && { depths: result.depths }),
    ...(greedy && { greedy_ids: greedy }),
  };
}

/** Everything but the logits, a line each. */
function summarize({ logits: _, ...rest }: Record<string, unknown>): string {
  return Object.entries(rest).map(([name, value]) => `${name}  ${JSON.stringify(value)}\n`).join("");
}
