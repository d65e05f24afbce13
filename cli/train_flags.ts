/** The settings of `mor train`: flags over a --config file over what a resumed run was started with over defaults. */
import { ValidationError } from "@cliffy/command";
import { z } from "zod";
import { hasWeights, readTrainingState } from "../model/files/checkpoint.ts";
import { ConfigError } from "../model/config.ts";
import { INIT_METHODS, type InitMethod } from "../model/initialize_from.ts";
import { ACTIVATION_DTYPES, type ActivationDtype } from "../model/layer_buffers.ts";
import { parseJson } from "../model/files/json_text.ts";
import { DEFAULT_OPTIMIZER } from "../model/optimizer.ts";
import { defaultSchedule } from "../model/schedule.ts";
import type { TrainCadence, TrainOptions, TrainSettings } from "../model/train.ts";

const count = z.int().positive();
const interval = z.int().nonnegative();
const amount = z.number().nonnegative();

/** Every setting under its flag's name in snake_case: what a --config file may hold. */
const flagsSchema = z.strictObject({
  model: z.string(),
  data: z.union([z.string(), z.array(z.string())]).transform((value) => [value].flat()),
  text_field: z.string(),
  tokenizer: z.string(),
  out: z.string(),
  steps: count,
  batch_size: count,
  sequence_length: count,
  gradient_accumulation: count,
  learning_rate: z.number().positive(),
  warmup_steps: interval,
  decay_steps: interval,
  weight_decay: amount,
  grad_clip: amount,
  capacity_warmup: interval,
  balancing_warmup: interval,
  init: z.string(),
  init_method: z.enum(INIT_METHODS),
  seed: z.int().nonnegative(),
  validation_fraction: z.number().min(0).max(0.5),
  eval_every: interval,
  eval_batches: count,
  save_every: count,
  sample_every: interval,
  sample_prompt: z.string(),
  stop_after: count,
  recompute: z.boolean(),
  activations: z.enum(ACTIVATION_DTYPES),
}).partial();

export type TrainFlags = z.infer<typeof flagsSchema>;

/** A run's settings with every gap filled. */
export type ResolvedFlags = TrainFlags & Required<typeof DEFAULTS>;

const DEFAULTS = {
  text_field: "text",
  steps: 1000,
  batch_size: 8,
  sequence_length: 256,
  gradient_accumulation: 1,
  learning_rate: 3e-3,
  weight_decay: DEFAULT_OPTIMIZER.weightDecay,
  grad_clip: DEFAULT_OPTIMIZER.maxGradNorm,
  capacity_warmup: 0,
  balancing_warmup: 0,
  init_method: "stepwise" as InitMethod,
  seed: 1,
  validation_fraction: 0.05,
  eval_every: 100,
  eval_batches: 16,
  save_every: 500,
  sample_every: 0,
  sample_prompt: "The ",
  recompute: false,
  activations: "f32" as ActivationDtype,
};

/** What a later call that resumes the run does not take over: what belongs to one call, and what config.json says. */
const NOT_INHERITED = ["out", "stop_after", "model"] as const;

/**
 * @throws ConfigError for an unreadable file, an unknown setting or a value out of its range.
 */
async function readFlagsFile(path: string): Promise<TrainFlags> {
  const source = `--config ${path}`;
  function fail(problem: string): never {
    throw new ConfigError(`Cannot use ${source}: ${problem}`);
  }
  const bytes = await Deno.readFile(path).catch(() => fail("no such file"));
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return fail("it is not UTF-8");
  }
  return checkFlags(parseJson(text, (problem) => fail(`it ${problem}`)), { source });
}

/** @throws ConfigError for the first unknown setting or value out of its range. */
function checkFlags(values: unknown, { source }: { source: string }): TrainFlags {
  const parsed = flagsSchema.safeParse(values);
  if (parsed.success) return parsed.data;
  throw new ConfigError(`Cannot use ${source}: ${firstIssue(parsed.error, values)}`);
}

/** The setting, the value met and the value wanted. */
function firstIssue({ issues }: z.ZodError, values: unknown): string {
  const issue = issues[0]!;
  if (issue.code === "unrecognized_keys") {
    return `unknown setting "${issue.keys[0]}"; remove it or correct its name`;
  }
  const [name] = issue.path;
  if (name === undefined) return issue.message;
  const met = (values as Record<PropertyKey, unknown>)[name];
  return `${String(name)} is ${JSON.stringify(met)}: ${issue.message}`;
}

/**
 * `{ batchSize: 4 }` of the parsed command line as checked flags; what is no setting is left out.
 *
 * @throws ValidationError for a value out of its range.
 */
export function flagsOf(options: object): TrainFlags {
  const named = Object.entries(options).map((
    [key, value],
  ) => [key.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`), value]);
  const known = named.filter(([key, value]) =>
    Object.hasOwn(flagsSchema.shape, key as string) && value !== undefined
  );
  const values = Object.fromEntries(known);
  const parsed = flagsSchema.safeParse(values);
  if (parsed.success) return parsed.data;
  const issue = firstIssue(parsed.error, values).replace(/^\w+/, (name) => `--${name.replaceAll("_", "-")}`);
  throw new ValidationError(`Cannot train: ${issue}`);
}

/** Later records win. */
export function mergeFlags(...layers: readonly TrainFlags[]): ResolvedFlags {
  return Object.assign({}, DEFAULTS, ...layers);
}

/** What a resumed run takes over from the one it continues. */
export function inheritedFlags(saved: string): TrainFlags {
  const source = "the settings saved with the run";
  const json = parseJson(saved, (problem) => {
    throw new ConfigError(`Cannot use ${source}: the text ${problem}`);
  });
  const flags = checkFlags(json, { source });
  return Object.fromEntries(
    Object.entries(flags).filter(([key]) => !NOT_INHERITED.includes(key as typeof NOT_INHERITED[number])),
  );
}

/** The value of a setting that has no default. */
export function required<T>(value: T | undefined, flag: string): T {
  if (value === undefined) throw new ValidationError(`Missing ${flag}; see mor train --help`);
  return value;
}

/**
 * The settings of the command line and of its --config file.
 *
 * @throws ValidationError for wrong usage; ConfigError for a --config file that cannot be used.
 */
export async function givenFlags(options: { readonly config?: string | undefined }): Promise<TrainFlags> {
  const fromFile = options.config ? await readFlagsFile(options.config) : {};
  return { ...fromFile, ...flagsOf(options) };
}

/**
 * Every setting of a run, from the parsed command line and what it refers to.
 *
 * @throws ValidationError for wrong usage; ConfigError for a --config file or a saved run that cannot be used.
 */
export async function resolveFlags(
  options: { readonly config?: string | undefined; readonly resume?: boolean | undefined },
): Promise<ResolvedFlags> {
  const given = await givenFlags(options);
  if (options.resume) {
    checkNotGiven(flagsOf(options));
    const saved = await savedFlags(required(given.out, "--out"));
    checkSameStart(given, saved);
    return mergeFlags(saved, given);
  }
  if (given.init_method !== undefined && given.init === undefined) {
    throw new ValidationError("--init-method needs --init: random weights have no layers to take");
  }
  return mergeFlags(given);
}

async function savedFlags(folder: string): Promise<TrainFlags> {
  if (!await hasWeights(folder)) {
    throw new ConfigError(`Cannot resume ${folder}: it holds no checkpoint; start the run without --resume`);
  }
  return inheritedFlags((await readTrainingState(folder)).flags);
}

/** Settings that only the start of a run depends on. */
const START = ["init", "init_method", "tokenizer"] as const;

function checkNotGiven(fromCommandLine: TrainFlags): void {
  const name = START.find((setting) => fromCommandLine[setting] !== undefined);
  if (name === undefined) return;
  const flag = `--${name.replace("_", "-")}`;
  throw new ValidationError(
    `${flag} cannot be given with --resume: the run in --out goes on as it was started`,
  );
}

/** A --config file may serve both a run's start and its resumption. */
function checkSameStart(given: TrainFlags, saved: TrainFlags): void {
  const name = START.find((setting) => given[setting] !== undefined && given[setting] !== saved[setting]);
  if (name === undefined) return;
  const started = saved[name] ?? "none";
  throw new ConfigError(
    `Cannot resume ${given.out}: ${name} is ${given[name]}, the run was started with ${started}; ` +
      "give the same, or start a new run elsewhere",
  );
}

export function settingsOf(flags: ResolvedFlags): TrainSettings {
  const schedule = defaultSchedule({ learningRate: flags.learning_rate, steps: flags.steps });
  return {
    shape: {
      batchSize: flags.batch_size,
      sequenceLength: flags.sequence_length,
      gradientAccumulation: flags.gradient_accumulation,
    },
    schedule: {
      ...schedule,
      warmupSteps: flags.warmup_steps ?? schedule.warmupSteps,
      decaySteps: flags.decay_steps ?? schedule.decaySteps,
    },
    optimizer: { ...DEFAULT_OPTIMIZER, weightDecay: flags.weight_decay, maxGradNorm: flags.grad_clip },
    routerWarmup: { capacity: flags.capacity_warmup, balancing: flags.balancing_warmup },
    activationDtype: flags.activations,
    seed: flags.seed,
    validationFraction: flags.validation_fraction,
  };
}

/** Where a new run's weights come from. */
export function initOf({ init, init_method: method }: ResolvedFlags): TrainOptions["init"] {
  return init === undefined ? null : { folder: init, method };
}

export function cadenceOf(flags: ResolvedFlags): TrainCadence {
  return {
    evaluateEvery: flags.eval_every,
    evaluationBatches: flags.eval_batches,
    saveEvery: flags.save_every,
    stopAfter: flags.stop_after ?? flags.steps,
  };
}
