/** What `mor bench compare` found, as tables and as JSON. */
import type { AdapterInfo } from "../gpu/adapter.ts";
import { CONFIDENCE, type RatioSummary, verdictOf } from "../model/paired_ratios.ts";
import { type Side, SIDES, type WorkComparison } from "../model/speed_comparison.ts";
import { median } from "../model/statistics.ts";
import type { WorkSettings } from "../model/timed_model.ts";
import { table } from "./table.ts";

/** A side as it was run. */
export interface ReportedSide {
  /** The flags of its own, as they were given. */
  readonly text: string;
  readonly revision: string | null;
  readonly commit: string | null;
  readonly dtype: string | null;
  readonly settings: WorkSettings;
}

export interface CompareReport {
  readonly adapter: Pick<AdapterInfo, "description" | "isSoftware">;
  /** The checkpoint's folder or the preset's name. */
  readonly model: string;
  readonly hasRandomWeights: boolean;
  readonly pairs: number;
  /** Whether each measurement was a process of its own. */
  readonly byProcess: boolean;
  readonly sides: Readonly<Record<Side, ReportedSide>>;
  readonly works: readonly WorkComparison[];
}

/** Times of a side in all pairs. */
interface SideFigures {
  readonly tokens: number;
  readonly median_milliseconds: number;
  readonly range_milliseconds: readonly [number, number];
  readonly tokens_per_second: number;
}

function figuresOf({ pairs }: WorkComparison, side: Side): SideFigures {
  const times = pairs.map((pair) => pair[side].milliseconds);
  const { tokens } = pairs[0]![side];
  return {
    tokens,
    median_milliseconds: median(times),
    range_milliseconds: [Math.min(...times), Math.max(...times)],
    tokens_per_second: (tokens / median(times)) * 1000,
  };
}

/** One object; times in milliseconds, each kind of work under the name that `mor profile --json` gives it. */
export function compareJson(report: CompareReport): Record<string, unknown> {
  const { adapter, model, hasRandomWeights, pairs, byProcess, sides, works } = report;
  return {
    adapter: adapter.description,
    is_software: adapter.isSoftware,
    model,
    random_weights: hasRandomWeights,
    pairs,
    by_process: byProcess,
    base: sideJson(sides.base),
    change: sideJson(sides.change),
    ...Object.fromEntries(works.map((work) => [work.work, workJson(work)])),
  };
}

function sideJson({ text, revision, commit, dtype, settings }: ReportedSide): Record<string, unknown> {
  const { promptTokens, steps, shape, recompute, activationDtype, seed } = settings;
  return {
    flags: text,
    revision,
    commit,
    dtype,
    seed,
    prompt_tokens: promptTokens,
    steps,
    ...(shape && {
      batch_size: shape.batchSize,
      sequence_length: shape.sequenceLength,
      recompute,
      activations: activationDtype,
    }),
  };
}

function workJson(comparison: WorkComparison): Record<string, unknown> {
  const { pairs, ratios } = comparison;
  return {
    base: figuresOf(comparison, "base"),
    change: figuresOf(comparison, "change"),
    pairs: pairs.map(({ first, base, change, ratio }) => ({
      first,
      base_milliseconds: base.milliseconds,
      change_milliseconds: change.milliseconds,
      ratio,
    })),
    ratio: {
      median: ratios.median,
      range: ratios.range,
      geometric_mean: ratios.geometricMean,
      confidence: CONFIDENCE,
      interval: ratios.interval,
    },
    verdict: verdictOf(ratios),
  };
}

/** Tables for people. */
export function compareText(report: CompareReport): string {
  const { adapter, model, hasRandomWeights, pairs, byProcess, sides, works } = report;
  const times = works.map((work) => {
    const [base, change] = SIDES.map((side) => figuresOf(work, side)) as [SideFigures, SideFigures];
    return [work.work, ...timeCells(base), ...timeCells(change)];
  });
  const ratios = works.map(({ work, ratios }) => [work, ...ratioCells(ratios), verdictText(ratios)]);
  const percent = `${100 * CONFIDENCE} %`;
  return `adapter   ${adapter.description}${adapter.isSoftware ? " (software)" : ""}\n` +
    `model     ${model}${hasRandomWeights ? ", random weights" : ""}\n` +
    SIDES.map((side) => `${side.padEnd(10)}${sideText(sides[side])}\n`).join("") +
    `work      ${workText(sides)}\n` +
    `pairs     ${pairs}${byProcess ? ", each measurement a process of its own" : ""}; median (range); ` +
    `a ratio above 1: the change takes less time for a token\n\n` +
    table([["work", "base ms", "tokens/s", "change ms", "tokens/s"], ...times]) + "\n" +
    table([["work", "ratio", `geometric mean (${percent} interval)`, "verdict"], ...ratios]);
}

function sideText({ text, commit }: ReportedSide): string {
  const flags = text === "" ? "no flags of its own" : text;
  return commit === null ? flags : `${flags}, commit ${commit.slice(0, 12)}`;
}

/** The work of both sides, once where it is the same. */
function workText({ base, change }: CompareReport["sides"]): string {
  const [baseText, changeText] = [base, change].map(({ settings }) => settingsText(settings));
  return baseText === changeText ? baseText! : `base: ${baseText}\n          change: ${changeText}`;
}

function settingsText(
  { promptTokens, steps, shape, recompute, activationDtype, seed }: WorkSettings,
): string {
  const again = recompute ? " whose layers run again for their gradients" : "";
  const stored = activationDtype === "f32" ? "" : ` with activations stored as ${activationDtype}`;
  const training = shape
    ? `, training steps of ${shape.batchSize} x ${shape.sequenceLength} tokens${again}${stored}`
    : "";
  return `a prompt of ${promptTokens} tokens, ${steps} decoding steps after it${training}; seed ${seed}`;
}

function timeCells(
  { median_milliseconds: middle, range_milliseconds: [low, high], tokens_per_second: speed }: SideFigures,
): string[] {
  return [
    `${middle.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`,
    speed.toFixed(speed < 100 ? 1 : 0),
  ];
}

function ratioCells({ median, range: [low, high], geometricMean, interval }: RatioSummary): string[] {
  const spread = interval === null
    ? "one pair has no spread"
    : `${interval[0].toFixed(3)} to ${interval[1].toFixed(3)}`;
  return [
    `${median.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`,
    `${geometricMean.toFixed(3)} (${spread})`,
  ];
}

/** A verdict in words: by how much the speed rose or fell, and the interval of that. */
export function verdictText(ratios: RatioSummary): string {
  const verdict = verdictOf(ratios);
  if (verdict === "no difference shown") return verdict;
  const [low, high] = ratios.interval!;
  const changes = verdict === "faster"
    ? [ratios.geometricMean - 1, low - 1, high - 1]
    : [1 - ratios.geometricMean, 1 - high, 1 - low];
  const percents = changes.map((change) => 100 * change);
  // Enough digits that the smallest is not shown as nothing.
  const digits = percents[1]! >= 1 ? 0 : percents[1]! >= 0.1 ? 1 : 2;
  const [mean, least, most] = percents.map((percent) => percent.toFixed(digits));
  return `${verdict} by ${mean} % (${least} to ${most} %)`;
}
