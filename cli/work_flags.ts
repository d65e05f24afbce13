/** Flags that say which work of a model is timed, for `mor profile` and `mor bench compare`. */
import { type Command, ValidationError } from "@cliffy/command";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import { ACTIVATION_DTYPES, type ActivationDtype } from "../model/layer_buffers.ts";
import type { MatrixChoice } from "../model/load_weights.ts";
import { presetNames } from "../model/presets.ts";
import type { WorkSettings } from "../model/timed_model.ts";
import type { StepShape } from "../model/training.ts";
import { DTYPE_HELP, formatFlag, matrixChoice } from "./dtype_flags.ts";
import type { Terminal } from "./terminal.ts";

export interface WorkFlags {
  readonly promptTokens?: number | undefined;
  readonly tokens: number;
  readonly train?: boolean | undefined;
  readonly batchSize?: number | undefined;
  readonly sequenceLength?: number | undefined;
  readonly recompute?: boolean | undefined;
  readonly activations?: string | undefined;
  readonly seed: number;
  readonly dtype?: string | undefined;
}

const DEFAULTS = { promptTokens: 512, tokens: 32, batchSize: 4, sequenceLength: 256, seed: 1 } as const;

/** Adds the flags of `WorkFlags` to a command, as a group of their own that goes on after them. */
export function addWorkFlags(
  // deno-lint-ignore no-explicit-any -- see root.ts
  command: Command<any>,
  { tokens, seed }: Pick<WorkFlags, "tokens" | "seed"> = DEFAULTS,
  // deno-lint-ignore no-explicit-any -- see root.ts
): Command<any> {
  return command
    .group("What is timed")
    .option(
      "-p, --prompt-tokens <n:integer>",
      `Tokens of the prompt; ${DEFAULTS.promptTokens}, or as many as the model's positions allow.`,
    )
    .option("-n, --tokens <n:integer>", "Decoding steps after the prompt; their mean is shown.", {
      default: tokens,
    })
    .option("--train", "Time a training step too.")
    .option("--batch-size <n:integer>", `With --train, sequences of a step; ${DEFAULTS.batchSize}.`)
    .option(
      "--sequence-length <n:integer>",
      `With --train, tokens of a sequence; ${DEFAULTS.sequenceLength}, or all of the model's positions.`,
    )
    .option(
      "--recompute",
      "With --train, run layers again for their gradients, as mor train --recompute does.",
    )
    .option(
      "--activations <format:string>",
      `With --train, store what layers keep for their gradients as ${
        ACTIVATION_DTYPES.join(" or ")
      } (f32), as mor train --activations does.`,
    )
    .option("--seed <n:integer>", "Seed of the tokens, and of a preset's weights.", { default: seed })
    .option("--dtype <format:string>", DTYPE_HELP);
}

/** @throws ValidationError for a count below 1. */
export function checkCounts(counts: Readonly<Record<string, number | undefined>>): void {
  for (const [name, count] of Object.entries(counts)) {
    if (count !== undefined && count < 1) throw new ValidationError(`${name} is ${count}, wanted 1 or more`);
  }
}

/** `checkCounts` of the work's own. */
export function checkWorkCounts({ promptTokens, tokens, batchSize, sequenceLength }: WorkFlags): void {
  checkCounts({
    "-p": promptTokens,
    "-n": tokens,
    "--batch-size": batchSize,
    "--sequence-length": sequenceLength,
  });
}

/**
 * Checks what can be checked without the model's files, and returns the choice of `--dtype`.
 *
 * @throws ValidationError for wrong counts, flags that need others, or a format that the weights cannot have.
 */
export function checkWork(flags: WorkFlags, model: string): MatrixChoice {
  checkWorkCounts(flags);
  const { train, batchSize, sequenceLength, recompute, activations } = flags;
  if (!train) {
    const ofTraining = {
      "--batch-size": batchSize,
      "--sequence-length": sequenceLength,
      "--recompute": recompute,
      "--activations": activations,
    };
    for (const [name, value] of Object.entries(ofTraining)) {
      if (value !== undefined) throw new ValidationError(`${name} needs --train`);
    }
  }
  activationFlag(activations);
  const choice = matrixChoice(flags.dtype);
  if (choice !== "auto" && choice !== "f32" && (train || hasRandomWeights(model))) {
    throw new ValidationError(
      `--dtype is "${choice}", wanted f32: random weights, and weights in training, are f32`,
    );
  }
  return choice;
}

/** `--activations`; throws as `formatFlag`. */
function activationFlag(dtype: string = "f32"): ActivationDtype {
  return formatFlag(dtype, { flag: "--activations", known: ACTIVATION_DTYPES });
}

/** Whether a model is a shape alone, a preset or a config.json, which gets random weights. */
export function hasRandomWeights(model: string): boolean {
  return presetNames().includes(model) || model.endsWith(".json");
}

/**
 * The work that flags mean for a model, with the gaps filled; says what it lowers for lack of positions.
 *
 * @throws ConfigError when prompt and steps go past the model's positions.
 */
export function workSettings(
  flags: WorkFlags,
  { config, terminal }: { config: ModelConfig; terminal: Terminal },
): WorkSettings {
  return {
    promptTokens: promptLength(flags, { config, terminal }),
    steps: flags.tokens,
    shape: flags.train ? stepShape(flags, { config, terminal }) : null,
    recompute: flags.recompute ?? false,
    activationDtype: activationFlag(flags.activations),
    seed: flags.seed,
  };
}

function promptLength(
  { promptTokens, tokens }: WorkFlags,
  { config: { maxPositionEmbeddings }, terminal }: { config: ModelConfig; terminal: Terminal },
): number {
  const room = maxPositionEmbeddings - tokens;
  if (room < (promptTokens ?? 1)) {
    throw new ConfigError(
      `Cannot profile ${promptTokens ?? 1} tokens and ${tokens} steps after them: the model has ` +
        `${maxPositionEmbeddings} positions (max_position_embeddings); lower -p or -n`,
    );
  }
  return promptTokens ??
    lowered("prompt", { wanted: DEFAULTS.promptTokens, room, maxPositionEmbeddings, terminal });
}

function stepShape(
  { batchSize = DEFAULTS.batchSize, sequenceLength }: WorkFlags,
  { config: { maxPositionEmbeddings }, terminal }: { config: ModelConfig; terminal: Terminal },
): StepShape {
  const [wanted, room] = [DEFAULTS.sequenceLength, maxPositionEmbeddings];
  return {
    batchSize,
    sequenceLength: sequenceLength ??
      lowered("training sequences", { wanted, room, maxPositionEmbeddings, terminal }),
    gradientAccumulation: 1,
  };
}

/** A default, or what there is room for; then it says so. */
function lowered(
  what: string,
  { wanted, room, maxPositionEmbeddings, terminal }: {
    wanted: number;
    room: number;
    maxPositionEmbeddings: number;
    terminal: Terminal;
  },
): number {
  if (room >= wanted) return wanted;
  terminal.note(
    `${what}: ${room} tokens instead of ${wanted}, since the model has ${maxPositionEmbeddings} positions ` +
      "(max_position_embeddings)",
  );
  return room;
}
