/** Driving a training run: progress, metrics, samples, Ctrl-C. */
import type { GpuDevice } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import { readTrainingState } from "../model/files/checkpoint.ts";
import type { ModelConfig, TokenChoiceConfig } from "../model/config.ts";
import type { Dataset } from "../model/text/dataset.ts";
import { generate } from "../model/generate.ts";
import type { ParameterViews } from "../model/parameter_layout.ts";
import { COLLAPSED_FRACTION, collapsedDepth, CollapseWatch } from "../model/router_health.ts";
import type { Tokenizer } from "../model/text/tokenizer.ts";
import type { TokenizerSource } from "../model/text/tokenizer_source.ts";
import { type StepReport, train, type TrainCadence, type TrainSettings } from "../model/train.ts";
import { InterruptedError, isFileError, RunFileError, withMore } from "./errors.ts";
import { MetricsLog } from "./metrics.ts";
import { formatDuration, openProgress, type Progress } from "./progress.ts";
import { peakMemory } from "./session.ts";
import type { Terminal } from "./terminal.ts";
import { initOf, type ResolvedFlags } from "./train_flags.ts";
import type { LockWords } from "./work_lock.ts";

/** A run as the flags describe it. */
export interface Run {
  readonly config: ModelConfig;
  readonly settings: TrainSettings;
  readonly cadence: TrainCadence;
  readonly dataset: Dataset;
  readonly tokenizer: Tokenizer;
  /** Where the tokenizer comes from, for the checkpoint. */
  readonly tokenizerSource: TokenizerSource;
  readonly flags: ResolvedFlags;
  readonly folder: string;
}

/** What a lock of a run's folder says. */
export const TRAINING: LockWords = { verb: "train in", doing: "at work there" };

/** Length of a sample text. */
const SAMPLE_TOKENS = 200;

/** Part of the newest step in the running mean of the speed. */
const SPEED_WEIGHT = 0.1;

/** Part of the tokens at one depth from which a router counts as collapsed. */
const COLLAPSED_PERCENT = 100 * COLLAPSED_FRACTION;

/**
 * Trains to the end, or until Ctrl-C. Returns the reports of all steps.
 *
 * @throws InterruptedError after Ctrl-C, with the checkpoint saved; RunFileError or GpuError, which say what was saved,
 * for a file that cannot be used, a device that is lost or has no memory left.
 */
export async function runTraining(
  run: Run,
  { terminal, resume, open }: { terminal: Terminal; resume: boolean; open: () => Promise<GpuDevice> },
): Promise<StepReport[]> {
  const { config, settings, cadence, dataset, tokenizerSource, flags, folder } = run;
  const interrupt = new AbortController();
  const onSignal = (): void => interrupt.abort();
  Deno.addSignalListener("SIGINT", onSignal);
  using device = await open();
  terminal.note(`seed: ${settings.seed}`);
  const reports: StepReport[] = [];
  const last = Math.min(settings.schedule.steps, cadence.stopAfter);
  let progress: Progress | null = null;
  let log: MetricsLog | null = null;
  let weights: ParameterViews | null = null;
  const collapse = new CollapseWatch();
  const speed = new Speedometer(settings);
  const options = {
    config,
    settings,
    cadence,
    dataset,
    tokenizer: tokenizerSource,
    folder,
    resume,
    init: initOf(flags),
    recompute: flags.recompute,
    flags: JSON.stringify(flags),
    signal: interrupt.signal,
  };
  try {
    for await (const report of train(device, options)) {
      if (report.kind === "started") {
        if (report.step > 0) terminal.note(`resumed at step ${report.step} of ${settings.schedule.steps}`);
        log = await MetricsLog.open(folder, { resumedStep: report.step });
        progress = openProgress(terminal, { max: last, value: report.step });
        weights = report.weights;
        speed.start();
      } else if (report.kind === "step") {
        const tokensPerSecond = speed.step({ isEvaluated: report.evaluation !== null });
        reports.push(report);
        log!.write(report, { tokensPerSecond });
        progress!.update(
          report.step,
          status(report, { tokensPerSecond, last, stepTokens: speed.stepTokens }),
        );
        if (report.evaluation) await progress!.note(evaluationLine(report, dataset));
        const warning = collapseWarning(report, { collapse, run });
        if (warning) await progress!.note(warning);
        if (flags.sample_every > 0 && report.step % flags.sample_every === 0) {
          await progress!.note(await sample(device, { run, weights: weights! }));
        }
        speed.start();
      } else if (report.kind === "interrupted") {
        throw new InterruptedError(
          `interrupted at step ${report.step}, saved in ${folder}; --resume goes on`,
        );
      } else {
        await log!.sync();
        speed.start();
      }
    }
  } catch (error) {
    if (isFileError(error)) throw await explainFileError(error, folder);
    throw error instanceof GpuError ? await explainGpuError(error, folder) : error;
  } finally {
    Deno.removeSignalListener("SIGINT", onSignal);
    await progress?.stop();
    log?.[Symbol.dispose]();
  }
  if (reports.length === 0) {
    terminal.note(
      `nothing to train: ${folder} has reached step ${last} of ${settings.schedule.steps} before; ` +
        "raise --stop-after, if it was given, or start a new run",
    );
    return reports;
  }
  terminal.note(`saved in ${folder}; peak GPU memory ${peakMemory(device)} (${device.memory.peak} bytes)`);
  return reports;
}

/** What to throw for an error of a run's folder: the system's words say nothing of what was saved before. */
export async function explainFileError(cause: Error, folder: string): Promise<RunFileError> {
  const step = await savedStep(folder);
  const kept = step === null
    ? "nothing was saved: put this right and start again"
    : `the checkpoint of step ${step} there is intact: put this right and go on with --resume`;
  return new RunFileError(`Cannot go on in ${folder}: ${withMore(cause.message, kept)}`, { cause });
}

/** A device that is lost, or has no memory left, says nothing of what was saved before. */
async function explainGpuError(cause: GpuError, folder: string): Promise<GpuError> {
  if (cause.kind !== "lost" && cause.kind !== "out-of-memory") return cause;
  const step = await savedStep(folder);
  const kept = step === null
    ? "nothing was saved: start the run again"
    : `the checkpoint of step ${step} in ${folder} is intact: --resume goes on from there`;
  return new GpuError(cause.kind, withMore(cause.message, kept), { cause });
}

/** The step of a folder's checkpoint, null if it has none. */
async function savedStep(folder: string): Promise<number | null> {
  return await readTrainingState(folder).then(({ step }) => step, () => null);
}

/** Running mean of tokens per second; time between steps does not count. */
class Speedometer {
  readonly stepTokens: number;
  #started = 0;
  #mean = 0;

  constructor({ shape: { batchSize, sequenceLength, gradientAccumulation } }: TrainSettings) {
    this.stepTokens = batchSize * sequenceLength * gradientAccumulation;
  }

  start(): void {
    this.#started = performance.now();
  }

  /** The mean after a step; one that evaluated took longer than training does and is left out. */
  step({ isEvaluated }: { isEvaluated: boolean }): number {
    if (isEvaluated && this.#mean > 0) return this.#mean;
    const now = this.stepTokens / ((performance.now() - this.#started) / 1000);
    this.#mean = this.#mean === 0 ? now : this.#mean + SPEED_WEIGHT * (now - this.#mean);
    return this.#mean;
  }
}

function status(
  { step, losses }: StepReport,
  { tokensPerSecond, last, stepTokens }: { tokensPerSecond: number; last: number; stepTokens: number },
): string {
  const left = formatDuration(((last - step) * stepTokens) / tokensPerSecond);
  return `loss ${losses.total.toFixed(3)}  ${Math.round(tokensPerSecond)} tokens/s  ${left} left`;
}

function evaluationLine({ step, evaluation }: StepReport, { validation }: Dataset): string {
  const { loss, depthFractions } = evaluation!;
  const bits = `${(loss / Math.LN2).toFixed(3)} bits per token`;
  const depths = depthFractions?.map((fraction, depth) => `${depth}: ${(100 * fraction).toFixed(0)} %`).slice(
    1,
  );
  const routed = depths ? `, depths ${depths.join(", ")}` : "";
  return `step ${step}: held-out loss ${loss.toFixed(4)} (${bits} on ${validation.length} tokens${routed})`;
}

/** What keeps token choice from collapsing. */
const BALANCING_ADVICE: Readonly<Record<TokenChoiceConfig["balancing"], string>> = {
  loss: "raise balancing_coefficient",
  loss_free: "raise bias_update_rate",
  none: "set balancing to loss or loss_free",
};

/** A line about a router that sends nearly all tokens to one depth, or null. */
function collapseWarning(
  { step, health, evaluation }: StepReport,
  { collapse, run: { config, settings } }: { collapse: CollapseWatch; run: Run },
): string | null {
  const { router } = config;
  if (router?.kind === "token_choice") {
    // During its warm-up every token is sent to the last depth on purpose.
    const depth = step > settings.routerWarmup.balancing ? collapse.see(health!.depthFractions) : null;
    return depth === null
      ? null
      : `warning: over ${COLLAPSED_PERCENT} % of the tokens had depth ${depth} for ` +
        `${CollapseWatch.steps} steps: the router has collapsed; ${BALANCING_ADVICE[router.balancing]}`;
  }
  const depth = evaluation?.depthFractions ? collapsedDepth(evaluation.depthFractions) : null;
  return depth === null
    ? null
    : `warning: causal routing gives over ${COLLAPSED_PERCENT} % of the held-out tokens ` +
      `depth ${depth}: generation will not route as training does; raise auxiliary_coefficient or train longer`;
}

async function sample(
  device: GpuDevice,
  { run: { config, flags, settings, tokenizer }, weights }: { run: Run; weights: ParameterViews },
): Promise<string> {
  const decoder = tokenizer.decoder({ isContinuation: true });
  const prompt = tokenizer.encode(flags.sample_prompt);
  let text = flags.sample_prompt;
  const tokens = generate(device, { config, weights }, {
    prompt,
    count: SAMPLE_TOKENS,
    sampling: { temperature: 0.8, topK: 0, topP: 0.95, minP: 0, repeatPenalty: 1 },
    seed: settings.seed,
    logProbabilities: 0,
    endTokens: tokenizer.endTokens,
  });
  for await (const { id } of tokens) text += decoder.push(id);
  return text + decoder.flush();
}
