import { Command, ValidationError } from "@cliffy/command";
import { dirname } from "@std/path";
import { measureCeilings } from "../gpu/ceilings.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { readbackMode } from "../gpu/readback.ts";
import { openCheckpoint } from "../model/files/checkpoint_source.ts";
import { writeText } from "../model/files/whole_file.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import type { MatrixChoice } from "../model/load_weights.ts";
import type { ModelWeights } from "../model/model_weights.ts";
import { ParameterLayout } from "../model/parameter_layout.ts";
import { presetNames } from "../model/presets.ts";
import { profileInference, type ProfileOptions, profileTraining } from "../model/profile.ts";
import { allocateTraining, type StepShape, type TrainingBuffers } from "../model/training.ts";
import { initializeWeights, loadParameters } from "../model/weights.ts";
import { DTYPE_HELP, matrixChoice } from "./dtype_flags.ts";
import { type ProfileReport, reportJson } from "./profile_report.ts";
import { reportCsv, reportMarkdown, reportText } from "./profile_tables.ts";
import { reportTrace } from "./profile_trace.ts";
import { openProgress } from "./progress.ts";
import { configOf, loadWeights, openNamedDevice } from "./session.ts";
import { openTerminal, type Terminal } from "./terminal.ts";

interface ProfileFlags {
  readonly promptTokens?: number | undefined;
  readonly tokens: number;
  readonly train?: boolean | undefined;
  readonly batchSize?: number | undefined;
  readonly sequenceLength?: number | undefined;
  readonly recompute?: boolean | undefined;
  readonly repeats: number;
  readonly seed: number;
  readonly dtype?: string | undefined;
  readonly json?: boolean | undefined;
  readonly csv?: boolean | undefined;
  readonly markdown?: boolean | undefined;
  readonly trace?: string | undefined;
  readonly html?: string | undefined;
  readonly quiet?: boolean | undefined;
}

const DEFAULTS = { promptTokens: 512, batchSize: 4, sequenceLength: 256 } as const;

/** `mor profile`: where the time of a model goes. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function profileCommand(): Command<any> {
  return new Command()
    .description(
      "Time a prompt, a decoding step and a training step: whole by the clock, and each kernel on the GPU. " +
        "Takes a checkpoint, or a preset, which gets random weights.",
    )
    .arguments("<model:string>")
    .option(
      "-p, --prompt-tokens <n:integer>",
      `Tokens of the prompt; ${DEFAULTS.promptTokens}, or as many as the model's positions allow.`,
    )
    .option("-n, --tokens <n:integer>", "Decoding steps after the prompt; their mean is shown.", {
      default: 32,
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
    .option("--repeats <n:integer>", "Times to measure each; the median is shown.", { default: 5 })
    .option("--seed <n:integer>", "Seed of the tokens, and of a preset's weights.", { default: 1 })
    .option("--dtype <format:string>", DTYPE_HELP)
    .option("--json", "Print one JSON object.")
    .option("--csv", "Print comma-separated values, a line for each kernel and part.")
    .option("--markdown", "Print tables in Markdown.")
    .option(
      "--trace <file:string>",
      "Write a timeline that Perfetto (ui.perfetto.dev) and chrome://tracing open.",
    )
    .option("--html <file:string>", "Write a page with rooflines, timelines and all tables.")
    .example("A preset's inference", "mor profile 135m-mor3 -p 128 -n 16")
    .example("With training", "mor profile my-model --train --batch-size 8")
    .action((flags: ProfileFlags, model: string) => run(flags, model));
}

async function run(flags: ProfileFlags, model: string): Promise<void> {
  checkFlags(flags);
  const form = reportForm(flags);
  const choice = matrixChoice(flags.dtype);
  if (choice !== "auto" && choice !== "f32" && (flags.train || isPreset(model))) {
    throw new ValidationError(
      `--dtype is "${choice}", wanted f32: a preset's random weights, and weights in training, are f32`,
    );
  }
  for (const path of [flags.trace, flags.html]) {
    if (path !== undefined) await Deno.mkdir(dirname(path), { recursive: true });
  }
  const terminal = openTerminal(flags);
  const config = await configOf(model);
  const context = promptLength(flags, { config, terminal });
  const shape = flags.train ? stepShape(flags, { config, terminal }) : null;
  using device = await openNamedDevice(terminal);
  terminal.note(`seed: ${flags.seed}`);
  const { recompute = false } = flags;
  const training = shape && allocateTraining(device, { config, shape, recompute, evaluationSequences: 0 });
  const weights = await weightsOf(device, { model, config, training, choice, flags, terminal });
  const { tokens: steps, repeats, seed } = flags;
  const ceilings = device.features.has("timestamp-query") ? await measureCeilings(device) : null;
  const inference = await measure(flags, {
    terminal,
    what: "prompt and decoding steps",
    profile: (options) =>
      profileInference(device, { config, weights }, { ...options, promptTokens: context, steps }),
  });
  const profile = training && await measure(flags, {
    terminal,
    what: "training steps",
    profile: (options) =>
      profileTraining(device, { config, buffers: training }, { ...options, shape: shape! }),
  });
  const report: ProfileReport = {
    adapter: device.info,
    readback: readbackMode(device)!,
    ceilings,
    model,
    hasRandomWeights: isPreset(model),
    seed,
    repeats,
    context,
    steps,
    inference,
    training: profile && { ...shape!, recompute, profile },
  };
  // First what the user is there to see; a file that cannot be written is an error after it.
  terminal.out(FORMS[form](report));
  await writeFiles(flags, { report, terminal });
}

const FORMS = {
  text: reportText,
  json: (report: ProfileReport) => JSON.stringify(reportJson(report)) + "\n",
  csv: reportCsv,
  markdown: reportMarkdown,
} as const;

function reportForm({ json, csv, markdown }: ProfileFlags): keyof typeof FORMS {
  const wanted = Object.entries({ json, csv, markdown }).filter(([, isWanted]) => isWanted);
  if (wanted.length > 1) {
    throw new ValidationError(
      `${wanted.map(([name]) => `--${name}`).join(" and ")} exclude each other; give one`,
    );
  }
  return (wanted[0]?.[0] ?? "text") as keyof typeof FORMS;
}

async function writeFiles(
  { trace, html }: ProfileFlags,
  { report, terminal }: { report: ProfileReport; terminal: Terminal },
): Promise<void> {
  if (trace !== undefined) {
    await writeText(trace, JSON.stringify(reportTrace(report)) + "\n");
    terminal.note(`timeline: ${trace}`);
  }
  if (html !== undefined) {
    // The plotting library is large: other commands start without it.
    const { reportHtml } = await import("./profile_html.ts");
    await writeText(html, reportHtml(report));
    terminal.note(`page: ${html}`);
  }
}

function checkFlags(
  { promptTokens, tokens, train, batchSize, sequenceLength, recompute, repeats }: ProfileFlags,
): void {
  const counts = {
    "-p": promptTokens,
    "-n": tokens,
    "--batch-size": batchSize,
    "--sequence-length": sequenceLength,
    "--repeats": repeats,
  };
  for (const [name, count] of Object.entries(counts)) {
    if (count !== undefined && count < 1) throw new ValidationError(`${name} is ${count}, wanted 1 or more`);
  }
  if (train) return;
  const ofTraining = {
    "--batch-size": batchSize,
    "--sequence-length": sequenceLength,
    "--recompute": recompute,
  };
  for (const [name, value] of Object.entries(ofTraining)) {
    if (value !== undefined) throw new ValidationError(`${name} needs --train`);
  }
}

/** @throws ConfigError when prompt and steps go past the model's positions. */
function promptLength(
  { promptTokens, tokens }: ProfileFlags,
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
  { batchSize = DEFAULTS.batchSize, sequenceLength }: ProfileFlags,
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

function isPreset(model: string): boolean {
  return presetNames().includes(model);
}

/** Random weights for a preset, a checkpoint's for a checkpoint; in the training step's own array where there is one. */
async function weightsOf(
  device: GpuDevice,
  { model, config, training, choice, flags: { seed }, terminal }: {
    model: string;
    config: ModelConfig;
    training: TrainingBuffers | null;
    choice: MatrixChoice;
    flags: ProfileFlags;
    terminal: Terminal;
  },
): Promise<ModelWeights> {
  if (!isPreset(model) && !training) {
    return await loadWeights(device, { source: await openCheckpoint(model), choice, terminal });
  }
  const layout = training?.layout ?? new ParameterLayout(config);
  const weights = training?.weights ?? layout.allocate(device, "weights");
  if (isPreset(model)) {
    initializeWeights(device, { layout, weights, seed });
  } else {
    using file = await (await openCheckpoint(model)).openWeights();
    await loadParameters(device, { layout, views: weights, file });
  }
  return weights;
}

/** Measures with progress shown. */
async function measure<T>(
  { repeats, seed }: ProfileFlags,
  { terminal, what, profile }: {
    terminal: Terminal;
    what: string;
    profile: (options: ProfileOptions) => Promise<T>;
  },
): Promise<T> {
  const progress = openProgress(terminal, { max: repeats, value: 0 });
  try {
    return await profile({ repeats, seed, onRepeat: (done) => progress.update(done, what) });
  } finally {
    await progress.stop();
  }
}
