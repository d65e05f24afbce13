import { Command, ValidationError } from "@cliffy/command";
import { z } from "zod";
import type { GpuDevice } from "../gpu/device.ts";
import {
  forwardCached,
  forwardCausal,
  type ForwardInput,
  type ForwardResult,
  forwardTopK,
  greedyContinuation,
  greedyRecomputed,
  type Model,
} from "../model/forward.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import { tokenRoom } from "../model/generate.ts";
import { parseJson } from "../model/files/json_text.ts";
import { ParameterLayout } from "../model/parameter_layout.ts";
import type { Routing } from "../model/selection.ts";
import { DTYPE_HELP, matrixChoice } from "./dtype_flags.ts";
import { loadModel } from "./session.ts";
import { openTerminal } from "./terminal.ts";

interface ForwardFlags {
  readonly ids: string;
  readonly routing?: string | undefined;
  readonly cached?: number | undefined;
  readonly greedy?: number | undefined;
  readonly gradients?: string | undefined;
  readonly dtype?: string | undefined;
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

const ROUTINGS: readonly string[] = ["causal", "top-k"] satisfies Routing[];

/** `mor forward`: one pass over given token ids, for checking against other implementations. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function forwardCommand(): Command<any> {
  return new Command()
    .description("Run given token ids through a model: logits, loss terms, chosen positions, gradients.")
    .arguments("<checkpoint:string>")
    .option(
      "--ids <file:file>",
      'JSON: {"input_ids": [[...]], "targets": [[...]]}; targets are optional.',
      {
        required: true,
      },
    )
    .option(
      "--routing <how:string>",
      "causal (as in generation) or top-k (as in training); top-k unless --cached is given.",
    )
    .option(
      "--cached <n:integer>",
      "Run causally through the key/value cache: the first n tokens of a row at once, the rest one by one.",
    )
    .option(
      "--greedy <n:integer>",
      "Continue the first row by n tokens, causally and greedily; without --cached the text runs again for each.",
    )
    .option("--gradients <file:file>", "Write the gradients of the total loss, under the weights' names.")
    .option("--dtype <format:string>", DTYPE_HELP)
    .option("--json", "Print one JSON object.")
    .example("Logits and losses", "mor forward my-model --ids case.json --json")
    .example("Through the cache", "mor forward my-model --ids case.json --cached 4 --greedy 16")
    .action((flags: ForwardFlags, checkpoint: string) => run(flags, checkpoint));
}

const rows = z.array(z.array(z.int().nonnegative()).min(1)).min(1);
const idsSchema = z.strictObject({ input_ids: rows, targets: rows.optional() });

async function run(flags: ForwardFlags, checkpoint: string): Promise<void> {
  checkFlags(flags);
  const terminal = openTerminal(flags);
  // Gradients are those of f32 weights.
  const choice = flags.gradients === undefined ? matrixChoice(flags.dtype) : "f32";
  const { device, config, weights } = await loadModel(checkpoint, { terminal, choice });
  const input = await readInput(flags, { config });
  const model = { config, layout: new ParameterLayout(config), weights };
  const result = await forward(device, { model, input, flags });
  const greedy = await continuation(device, { model, prompt: input.ids[0]!, flags });
  const report = reportOf(result, { greedy, isCached: flags.cached !== undefined });
  terminal.out(flags.json ? JSON.stringify(report) + "\n" : summarize(report));
  device.close();
}

function checkFlags({ routing, cached, greedy, gradients, dtype }: ForwardFlags): void {
  function check(isRight: boolean, text: string): void {
    if (!isRight) throw new ValidationError(text);
  }
  const isTopK = routing !== "causal" && cached === undefined;
  check(
    routing === undefined || ROUTINGS.includes(routing),
    `--routing is "${routing}", wanted ${ROUTINGS.join(" or ")}`,
  );
  check(
    cached === undefined || routing !== "top-k",
    "--cached needs --routing causal: top-k looks at later tokens",
  );
  check(
    gradients === undefined || isTopK,
    "--gradients needs --routing top-k and no --cached: training routes by top-k",
  );
  check(gradients === undefined || dtype === undefined || dtype === "f32", "--gradients needs --dtype f32");
  check(cached === undefined || cached >= 0, `--cached is ${cached}, wanted 0 or more`);
  check(greedy === undefined || greedy >= 0, `--greedy is ${greedy}, wanted 0 or more`);
}

async function forward(
  device: GpuDevice,
  { model, input, flags: { routing, cached, gradients } }: {
    model: Model;
    input: ForwardInput;
    flags: ForwardFlags;
  },
): Promise<ForwardResult> {
  if (cached !== undefined) return await forwardCached(device, { model, input, split: cached });
  if (routing === "causal") return await forwardCausal(device, { model, input });
  return await forwardTopK(device, { model, input, gradientsPath: gradients ?? null });
}

/** @throws ConfigError where the text would grow past the model's positions. */
async function continuation(
  device: GpuDevice,
  { model, prompt, flags: { greedy: count, cached } }: {
    model: Model;
    prompt: readonly number[];
    flags: ForwardFlags;
  },
): Promise<number[] | null> {
  if (count === undefined) return null;
  const room = tokenRoom(model.config, { prompt });
  if (count > room) {
    throw new ConfigError(
      `Cannot continue by ${count} tokens: after the ${prompt.length} of the first row the model's ` +
        `${model.config.maxPositionEmbeddings} positions (max_position_embeddings) have room for ${room}; ` +
        "lower --greedy",
    );
  }
  const options = { model, prompt, count };
  return await (cached === undefined ? greedyRecomputed : greedyContinuation)(device, options);
}

/**
 * The ids, and targets, of a file.
 *
 * @throws ConfigError for a file that cannot be used.
 */
export async function readInput(
  { ids: path, gradients }: ForwardFlags,
  { config: { vocabSize } }: { config: ModelConfig },
): Promise<ForwardInput> {
  function fail(reason: string): never {
    throw new ConfigError(`Cannot use --ids ${path}: ${reason}`);
  }
  const text = await Deno.readTextFile(path);
  const parsed = idsSchema.safeParse(parseJson(text, (problem) => fail(`it ${problem}`)));
  if (!parsed.success) {
    return fail(`${parsed.error.issues[0]!.path.join(".")}: ${parsed.error.issues[0]!.message}`);
  }
  const { input_ids: ids, targets = null } = parsed.data;
  const lengths = ids.map((row) => row.length);
  if (targets && targets.map((row) => row.length).join() !== lengths.join()) {
    fail("targets and input_ids differ in shape");
  }
  if (gradients && targets === null) fail('it has no "targets"; --gradients needs them');
  if (gradients && lengths.some((length) => length !== lengths[0])) {
    fail("rows of input_ids differ in length; --gradients needs equal ones");
  }
  const largest = [...ids, ...targets ?? []].flat().reduce((a, b) => Math.max(a, b), 0);
  if (largest >= vocabSize) fail(`id ${largest} is outside the vocabulary of ${vocabSize}`);
  return { ids, targets };
}

/** Through the cache only the cross-entropy is computed: the other terms belong to a whole batch. */
function reportOf(
  { losses, ...result }: ForwardResult,
  { greedy, isCached }: { greedy: readonly number[] | null; isCached: boolean },
): Record<string, unknown> {
  return {
    logits: result.logits,
    ...(losses && {
      loss_ce: losses.ce,
      ...(losses.auxiliary !== null && { loss_auxiliary: losses.auxiliary }),
      ...(losses.balancing !== null && { loss_balancing: losses.balancing }),
      ...(losses.z !== null && { loss_z: losses.z }),
      ...(!isCached && { loss_total: losses.total }),
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
