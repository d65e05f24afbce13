/** metrics.jsonl: one JSON object for each step of a run. */
import { join } from "@std/path";
import { replaceFile, writeAll } from "../model/files/whole_file.ts";
import type { RouterHealth } from "../model/router_health.ts";
import type { StepReport } from "../model/train.ts";

const FILE = "metrics.jsonl";

/** The open log of a run. */
export class MetricsLog {
  readonly #file: Deno.FsFile;

  private constructor(file: Deno.FsFile) {
    this.#file = file;
  }

  /** Opens the log; of an earlier one, the lines up to the step that the run goes on from stay. */
  static async open(folder: string, { resumedStep }: { resumedStep: number }): Promise<MetricsLog> {
    const path = join(folder, FILE);
    const earlier = resumedStep > 0 ? await earlierText(path) : "";
    const kept = earlier.split("\n").filter((line) => stepOf(line) <= resumedStep);
    const text = kept.map((line) => line + "\n").join("");
    await replaceFile(path, { write: (file) => writeAll(file, new TextEncoder().encode(text)) });
    return new MetricsLog(await Deno.open(path, { append: true }));
  }

  write(report: StepReport, { tokensPerSecond }: { tokensPerSecond: number }): void {
    this.#file.writeSync(new TextEncoder().encode(JSON.stringify(metricsOf(report, tokensPerSecond)) + "\n"));
  }

  /** Makes the lines so far survive a power cut: those of a checkpoint's steps are to be there when it is. */
  async sync(): Promise<void> {
    await this.#file.sync();
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}

/** Nothing where there is no log: whoever resumes a run may have removed it. */
async function earlierText(path: string): Promise<string> {
  return await Deno.readTextFile(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  });
}

/** Infinity for a line that is no step: a killed run left it unfinished, or a power cut left holes in it. */
function stepOf(line: string): number {
  try {
    const { step } = JSON.parse(line);
    return Number.isInteger(step) ? step : Infinity;
  } catch {
    return Infinity;
  }
}

function metricsOf(report: StepReport, tokensPerSecond: number): Record<string, unknown> {
  const { step, tokens, losses, learningRate, gradNorm, health, evaluation } = report;
  return {
    step,
    tokens,
    loss: losses.total,
    loss_ce: losses.ce,
    ...(losses.auxiliary !== null && { loss_auxiliary: losses.auxiliary }),
    ...(losses.balancing !== null && { loss_balancing: losses.balancing }),
    ...(losses.z !== null && { loss_z: losses.z }),
    learning_rate: learningRate,
    grad_norm: gradNorm,
    tokens_per_second: Math.round(tokensPerSecond),
    ...(health && healthMetrics(health)),
    ...(evaluation && { val_loss: evaluation.loss }),
    ...(evaluation?.depthFractions && { val_depth_fractions: evaluation.depthFractions }),
  };
}

function healthMetrics(
  { depthFractions, selectionAccuracy, deadTokens, maxViolation, entropy }: RouterHealth,
): Record<string, unknown> {
  return {
    depth_fractions: depthFractions,
    ...(selectionAccuracy !== null && { selection_accuracy: selectionAccuracy }),
    dead_tokens: deadTokens,
    max_violation: maxViolation,
    depth_entropy: entropy,
  };
}
