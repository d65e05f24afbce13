import { Command } from "@cliffy/command";
import { formatBytes } from "../gpu/memory.ts";
import { hasWeights } from "../model/files/checkpoint.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import { type Dataset, readTokens, splitTokens } from "../model/text/dataset.ts";
import { flopsPerToken } from "../model/flops.ts";
import { parameterCount, unrolledParameterCount } from "../model/parameters.ts";
import { INIT_METHODS } from "../model/initialize_from.ts";
import { ACTIVATION_DTYPES } from "../model/layer_buffers.ts";
import type { Tokenizer } from "../model/text/tokenizer.ts";
import { tokenizerFor, type TokenizerSource } from "../model/text/tokenizer_source.ts";
import { evaluationSequences } from "../model/train.ts";
import { isFileError } from "./errors.ts";
import { hostMemory, openNamedDevice } from "./session.ts";
import { openTerminal, type Terminal } from "./terminal.ts";
import {
  cadenceOf,
  givenFlags,
  required,
  type ResolvedFlags,
  resolveFlags,
  settingsOf,
} from "./train_flags.ts";
import { checkMemory, plannedMemory, type TrainPlan } from "./train_memory.ts";
import { runConfig, runTokenizer } from "./train_model.ts";
import { explainFileError, runTraining, TRAINING } from "./train_run.ts";
import { WorkLock } from "./work_lock.ts";

interface TrainOptions {
  readonly config?: string | undefined;
  readonly resume?: boolean | undefined;
  readonly dryRun?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

/** `mor train`: a text in, a checkpoint out. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function trainCommand(): Command<any> {
  return new Command()
    .description(
      "Train a model on text. Defaults follow the paper's recipe; --dry-run shows what a run would take.",
    )
    .group("Model and data")
    .option("--model <preset:file>", "Preset, such as tiny or 360m-mor3, or a config.json.")
    .option("--data <path:file>", "Text or JSONL file, or a folder of them; repeatable.", { collect: true })
    .option("--text-field <name:string>", "Field of a JSONL line that holds the text (text).")
    .option(
      "--tokenizer <path:file>",
      "A tokenizer.json, a folder with one, or a checkpoint with a tokenizer: a preset's vocabulary becomes its own. " +
        "The presets demo and tiny have bytes.",
    )
    .option("--out <folder:file>", "Folder of the checkpoint and metrics.jsonl.")
    .group("Optimization")
    .option("--steps <n:integer>", "Optimizer steps of the whole run (1000).")
    .option("--batch-size <n:integer>", "Sequences in a batch (8).")
    .option("--sequence-length <n:integer>", "Tokens in a sequence (256).")
    .option("--gradient-accumulation <n:integer>", "Batches added up for one step (1).")
    .option("--learning-rate <rate:number>", "Peak learning rate (0.003).")
    .option("--warmup-steps <n:integer>", "Steps of linear warm-up (5 % of the steps).")
    .option("--decay-steps <n:integer>", "Steps of linear decay to 0 at the end (20 % of the steps).")
    .option("--weight-decay <x:number>", "AdamW's decay of matrices (0.1).")
    .option("--grad-clip <norm:number>", "Largest gradient norm, 0 for none (1).")
    .group("Routing")
    .option("--capacity-warmup <n:integer>", "Expert choice: steps in which capacities come down from 1 (0).")
    .option(
      "--balancing-warmup <n:integer>",
      "Token choice: steps in which every token runs all recursions (0).",
    )
    .group("Memory")
    .option(
      "--recompute",
      "Keep only each layer's output and run layers again for their gradients: less memory, about a third more work.",
    )
    .option(
      "--no-recompute",
      "Keep all activations, also where the run that is resumed, or --config, did not.",
    )
    .option(
      "--activations <format:string>",
      `Store what layers keep for their gradients as ${ACTIVATION_DTYPES.join(" or ")} (f32). ` +
        "f16 takes about a third of that memory; arithmetic, weights and gradients stay f32.",
    )
    .group("Model and data")
    .option("--init <folder:file>", "Start from this checkpoint's weights instead of random ones.")
    .option(
      "--init-method <how:string>",
      `How its layers become fewer: ${INIT_METHODS.join(", ")} (stepwise).`,
    )
    .group("Optimization")
    .option("--seed <n:integer>", "Seed of weights, batches and sampling (1).")
    .group("Evaluation and checkpoints")
    .option("--validation-fraction <x:number>", "Part of the text held out, from its end (0.05).")
    .option("--eval-every <n:integer>", "Steps between evaluations, 0 for none (100).")
    .option("--eval-batches <n:integer>", "Most batches of an evaluation (16).")
    .option("--save-every <n:integer>", "Steps between checkpoints (500).")
    .option("--sample-every <n:integer>", "Steps between sample texts, 0 for none (0).")
    .option("--sample-prompt <text:string>", 'How samples begin ("The ").')
    .group("Run")
    .option("--stop-after <n:integer>", "End cleanly after this step; the schedule stays that of --steps.")
    .option("--resume", "Continue the run in --out; settings not given are those it was started with.")
    .option("--config <file:file>", "JSON with any of these settings in snake_case; flags win.")
    .option("--dry-run", "Show parameters, FLOPs and memory; train nothing.")
    .example("A small model on your text", "mor train --model tiny --data book.txt --out my-model")
    .example(
      "A recursive model out of a vanilla one",
      "mor train --model tiny --init vanilla --data book.txt --out mor",
    )
    .example("Go on after an interruption", "mor train --out my-model --resume")
    .action((options: TrainOptions) => train(options));
}

async function train(options: TrainOptions): Promise<void> {
  const terminal = openTerminal(options);
  using lock = await lockRun(options, terminal);
  const flags = await resolveFlags(options);
  const config = await runConfig(flags, options);
  checkWarmup(config, flags);
  const settings = settingsOf(flags);
  const readSource = (): Promise<TokenizerSource> =>
    runTokenizer(flags, { config, isResumed: options.resume ?? false });
  if (options.dryRun) {
    // Without them a preset that has no tokenizer can be looked at.
    const isTokenizerUsed = flags.data !== undefined || flags.tokenizer !== undefined;
    const tokenizer = isTokenizerUsed ? tokenizerFor(await readSource(), { config }) : null;
    const dataset = tokenizer && flags.data ? await loadDataset(flags, { config, tokenizer }) : null;
    dryRun({ config, settings, flags }, { terminal, dataset, isResumed: options.resume ?? false });
    return;
  }
  const out = required(flags.out, "--out");
  await checkFolder(out, options);
  const tokenizerSource = await readSource();
  const tokenizer = tokenizerFor(tokenizerSource, { config });
  const dataset = await loadDataset(flags, { config, tokenizer });
  try {
    // Another run may have been there and gone since.
    if (await lock?.takeFolder()) await checkFolder(out, options);
  } catch (error) {
    throw isFileError(error) ? await explainFileError(error, out) : error;
  }
  const run = {
    config,
    settings,
    cadence: cadenceOf(flags),
    dataset,
    tokenizer,
    tokenizerSource,
    flags,
    folder: out,
  };
  await runTraining(run, {
    terminal,
    resume: options.resume ?? false,
    open: async () => {
      const device = await openNamedDevice(terminal);
      const limit = device.info.isSoftware ? hostMemory() : Infinity;
      checkMemory({ config, settings, flags, dataset, limit, isResumed: options.resume ?? false });
      return device;
    },
  });
}

/** Keeps other runs out of the folder from before anything in it is read; it need not be there yet. */
async function lockRun(options: TrainOptions, terminal: Terminal): Promise<WorkLock | null> {
  const { out } = await givenFlags(options);
  if (out === undefined || options.dryRun) return null;
  const lock = new WorkLock(out, { words: TRAINING, terminal });
  await lock.takeIfThere();
  return lock;
}

/** @throws ConfigError for the warm-up of a router that the model does not have. */
function checkWarmup(
  { router }: ModelConfig,
  { capacity_warmup: capacity, balancing_warmup: balancing }: ResolvedFlags,
): void {
  const met = router ? `routes by ${router.kind.replace("_", " ")}` : "has no router";
  const wanted = [
    ["--capacity-warmup", capacity, "expert_choice"],
    ["--balancing-warmup", balancing, "token_choice"],
  ] as const;
  for (const [flag, steps, kind] of wanted) {
    if (steps === 0 || router?.kind === kind) continue;
    throw new ConfigError(
      `Cannot train: ${flag} is ${steps}, but the model ${met}; ` +
        `give 0, or a model that routes by ${kind.replace("_", " ")}`,
    );
  }
}

async function checkFolder(folder: string, { resume }: TrainOptions): Promise<void> {
  if (!resume && await hasWeights(folder)) {
    throw new ConfigError(
      `Cannot start a run in ${folder}: it holds a checkpoint; give --resume to go on with it, or another --out`,
    );
  }
}

async function loadDataset(
  flags: ResolvedFlags,
  { config, tokenizer }: { config: ModelConfig; tokenizer: Tokenizer },
): Promise<Dataset> {
  const tokens = await readTokens(required(flags.data, "--data"), { tokenizer, textField: flags.text_field });
  return await splitTokens(tokens, {
    validationFraction: flags.validation_fraction,
    sequenceLength: flags.sequence_length,
    vocabSize: config.vocabSize,
  });
}

/** Says what the run would take. Without data the evaluation batch is taken to be as large as the training batch. */
function dryRun(
  { config, settings, flags }: TrainPlan,
  { terminal, dataset, isResumed }: { terminal: Terminal; dataset: Dataset | null; isResumed: boolean },
): void {
  const { shape, schedule } = settings;
  const sequences = flags.eval_every === 0
    ? 0
    : dataset
    ? evaluationSequences(dataset, settings)
    : shape.batchSize;
  const memory = (changes: Partial<ResolvedFlags> = {}): string => {
    const peak = plannedMemory({ config, settings, flags: { ...flags, ...changes } }, { sequences });
    return `${formatBytes(peak)} (${peak} bytes)`;
  };
  const perToken = flopsPerToken(config, { tokens: shape.sequenceLength });
  const stepTokens = shape.batchSize * shape.sequenceLength * shape.gradientAccumulation;
  const total = perToken.full * 3 * stepTokens * schedule.steps;
  const rows = [
    ["parameters", parameterCount(config).toLocaleString("en")],
    ["if unrolled", unrolledParameterCount(config).toLocaleString("en")],
    [
      "tokens",
      `${(stepTokens * schedule.steps).toLocaleString("en")} (${stepTokens} a step, ${schedule.steps} steps)`,
    ],
    [
      "FLOPs per token",
      `${(perToken.full / 1e6).toFixed(2)} M forward, paper's formula ${(perToken.paper / 1e6).toFixed(2)} M`,
    ],
    [
      "FLOPs of the run",
      `${total.toExponential(2)} forward and backward` +
      (flags.recompute ? ", besides what --recompute runs again" : ""),
    ],
    ["GPU memory", memory()],
    ...flags.activations === "f16" ? [] : [["with --activations f16", memory({ activations: "f16" })]],
    ...flags.recompute ? [] : [["with --recompute", memory({ recompute: true })]],
  ];
  terminal.out(rows.map(([name, value]) => `${name!.padEnd(24)}${value}\n`).join(""));
  if (dataset) checkMemory({ config, settings, flags, dataset, limit: hostMemory(), isResumed });
}
