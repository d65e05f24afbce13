/** What `mor bench throughput` measured, as tables and as JSON. */
import type { AdapterInfo } from "../gpu/adapter.ts";
import type { KvDtype } from "../gpu/kernels/attention_heads.ts";
import { formatBytes } from "../gpu/memory.ts";
import { TICK_PARTS, type TickTime } from "../model/batching/throughput.ts";
import type { SystemThroughput, ThroughputComparison } from "../model/batching/throughput_comparison.ts";
import { median } from "../model/statistics.ts";
import { table } from "./table.ts";

export interface ThroughputReport {
  readonly adapter: AdapterInfo;
  readonly comparison: ThroughputComparison;
  readonly rows: number;
  readonly meanLength: number;
  readonly kvDtype: KvDtype;
  readonly windows: number;
  readonly seconds: number;
  readonly seed: number;
}

/** The names of parts in JSON. */
const PART_NAMES = Object.keys(TICK_PARTS) as (keyof typeof TICK_PARTS)[];

/** One object; times in milliseconds, shares from 0 to 1. */
export function throughputJson(
  { adapter, comparison: { systems, kvBytes, slots }, ...settings }: ThroughputReport,
): Record<string, unknown> {
  return {
    adapter: adapter.description,
    is_software: adapter.isSoftware,
    batch_size: settings.rows,
    texts: slots,
    mean_length: settings.meanLength,
    kv_bytes: kvBytes,
    kv_dtype: settings.kvDtype,
    windows: settings.windows,
    seconds: settings.seconds,
    seed: settings.seed,
    systems: systems.map((measured) => ({
      ...figuresOf(measured),
      speeds: measured.speeds,
      gains: measured.gains,
    })),
  };
}

/** Medians over a system's windows. */
interface SystemFigures {
  readonly model: string;
  readonly depth_wise: boolean;
  readonly tokens_per_second: number;
  readonly gain: number;
  readonly flops_ratio: number;
  readonly gain_of_flops_ratio: number;
  readonly occupancy: number;
  readonly mean_depth: number | null;
  readonly live_texts: number;
  readonly pages_in_use: number;
  readonly restarts: number;
  readonly tick_milliseconds: Readonly<Record<string, number>> | null;
}

function figuresOf({ system, windows, speeds, gains, flopsRatio, time }: SystemThroughput): SystemFigures {
  const gain = median(gains);
  return {
    model: system.name,
    depth_wise: system.isDepthWise,
    tokens_per_second: median(speeds),
    gain,
    flops_ratio: flopsRatio,
    gain_of_flops_ratio: gain / flopsRatio,
    occupancy: median(windows.map(({ occupancy }) => occupancy)),
    mean_depth: system.config.recursion ? median(windows.map((window) => window.meanDepth)) : null,
    live_texts: median(windows.map(({ live }) => live)),
    pages_in_use: median(windows.map(({ pagesInUse }) => pagesInUse)),
    restarts: windows.reduce((sum, { restarts }) => sum + restarts, 0),
    tick_milliseconds: time && { ...time.parts, kernels: time.kernels },
  };
}

/** Tables for people. */
export function throughputText(report: ThroughputReport): string {
  const { adapter, comparison: { systems, kvBytes }, rows, meanLength, kvDtype, windows, seconds, seed } =
    report;
  const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;
  const lines = systems.map((measured) => {
    const figures = figuresOf(measured);
    const [low, high] = [Math.min(...measured.speeds), Math.max(...measured.speeds)];
    return [
      figures.model,
      `${figures.tokens_per_second.toFixed(0)} (${low.toFixed(0)} to ${high.toFixed(0)})`,
      figures.gain.toFixed(2),
      figures.flops_ratio.toFixed(2),
      figures.gain_of_flops_ratio.toFixed(2),
      percent(figures.occupancy),
      figures.mean_depth?.toFixed(2) ?? "",
      String(figures.live_texts),
      percent(figures.pages_in_use),
      String(figures.restarts),
    ];
  });
  const head = [
    "model",
    "tokens/s",
    "gain",
    "FLOPs ratio",
    "of it",
    "rows in use",
    "depth",
    "texts",
    "pages in use",
    "begun anew",
  ];
  return `adapter   ${adapter.description}${adapter.isSoftware ? " (software)" : ""}\n` +
    `batch     ${rows} rows, texts of ${meanLength} tokens on average, ${
      formatBytes(kvBytes)
    } for keys and values ` +
    `in ${kvDtype}; seed ${seed}\n` +
    `windows   ${windows} of ${seconds} s in turns: median (range); gains by turn\n\n` +
    table([head, ...lines]) + timesText(systems);
}

/** Where a tick's time goes. */
function timesText(systems: readonly SystemThroughput[]): string {
  const timed = systems.filter((measured): measured is SystemThroughput & { time: TickTime } =>
    measured.time !== null
  );
  if (timed.length === 0) return "\nparts not timed: the adapter grants no timestamps\n";
  const cell = (part: number, { kernels }: TickTime): string =>
    `${part.toFixed(2)} ms ${`${(100 * part / kernels).toFixed(1)} %`.padStart(6)}`;
  const lines = timed.map(({ system, time }) => [
    system.name,
    ...PART_NAMES.map((name) => cell(time.parts[name], time)),
    `${time.kernels.toFixed(2)} ms`,
  ]);
  return `\na mean tick on the GPU, kernel by kernel\n` +
    table([["model", ...PART_NAMES.map((name) => TICK_PARTS[name]), "all"], ...lines]);
}
