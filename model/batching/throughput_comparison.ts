/** Throughput of several models, or of one in several ways, measured in turns on the same memory. */
import type { GpuDevice } from "../../gpu/device.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import type { ModelConfig } from "../config.ts";
import { flopsPerToken } from "../flops.ts";
import type { ModelWeights } from "../model_weights.ts";
import { batchParts } from "./batch_parts.ts";
import { expectedPages } from "./page_demand.ts";
import { ticksPerRead } from "./batch_engine.ts";
import { SLOTS_PER_ROW } from "./batch_size.ts";
import { bindableBytes, pageBytes } from "./page_store.ts";
import { longestText, ThroughputRun, type ThroughputWindow, type TickTime } from "./throughput.ts";

/** A way to run a model. */
export interface ThroughputSystem {
  readonly name: string;
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly isDepthWise: boolean;
}

export interface ComparisonOptions {
  readonly rows: number;
  readonly meanLength: number;
  readonly kvDtype: KvDtype;
  /** For keys and values of each system; null for what two texts of all ages for each row of the first need. */
  readonly kvBytes: number | null;
  /** Windows of each system, and seconds of a window. */
  readonly windows: number;
  readonly seconds: number;
  readonly seed: number;
  /** Told what is done. */
  readonly onProgress: (done: number, what: string) => void;
}

/** What was measured of a system. */
export interface SystemThroughput {
  readonly system: ThroughputSystem;
  readonly windows: readonly ThroughputWindow[];
  /** Tokens a second in each window. */
  readonly speeds: readonly number[];
  /** Speed of each window over that of the first system's in the same turn. */
  readonly gains: readonly number[];
  /** FLOPs of the first system's tokens over those of this one's. */
  readonly flopsRatio: number;
  readonly time: TickTime | null;
}

/** What was measured, and with what. */
export interface ThroughputComparison {
  readonly systems: readonly SystemThroughput[];
  readonly kvBytes: number;
  readonly slots: number;
}

/** Texts of the first system for each row that the memory is made for unless told; they have half their tokens on average. */
const TEXTS_PER_ROW = 2;

/** Steps of the work that `onProgress` counts. */
export function comparisonSteps(systems: readonly unknown[], { windows }: { windows: number }): number {
  return systems.length * (2 + windows);
}

/**
 * Measures the systems' windows in turns, so that a machine whose speed drifts is as fast for each of them.
 *
 * @throws ConfigError, MemoryError: as `BatchEngine` does.
 */
export async function compareThroughput(
  device: GpuDevice,
  systems: readonly ThroughputSystem[],
  options: ComparisonOptions,
): Promise<ThroughputComparison> {
  const { rows, meanLength, kvDtype, windows, seconds, seed, onProgress } = options;
  const kvBytes = options.kvBytes ?? defaultKvBytes(device, systems, options);
  const slots = Math.ceil(SLOTS_PER_ROW * rows);
  let done = 0;
  const runs: ThroughputRun[] = [];
  try {
    const ticks = await ticksPerRead(device);
    // What does not fit is known before anything runs.
    for (const { isDepthWise, ...model } of systems) {
      // In step, a batch is as many texts as there are rows.
      const shape = { rows, slots: isDepthWise ? slots : rows, isDepthWise };
      runs.push(new ThroughputRun(device, model, { ...shape, meanLength, kvBytes, kvDtype, ticks, seed }));
    }
    for (const [i, run] of runs.entries()) {
      onProgress(done++, `filling ${systems[i]!.name}`);
      await run.warmUp();
    }
    const measured: ThroughputWindow[][] = systems.map(() => []);
    for (let window = 0; window < windows; window++) {
      for (const [i, run] of runs.entries()) {
        onProgress(done++, systems[i]!.name);
        measured[i]!.push(await run.window(seconds));
      }
    }
    const times: (TickTime | null)[] = [];
    for (const [i, run] of runs.entries()) {
      onProgress(done++, `parts of ${systems[i]!.name}`);
      times.push(await run.parts({ rounds: 3 }));
    }
    const flops = systems.map(({ config }) => flopsPerToken(config, { tokens: meanLength }).full);
    const speeds = measured.map((list) => list.map(({ tokens, seconds }) => tokens / seconds));
    return {
      kvBytes,
      slots,
      systems: systems.map((system, i) => ({
        system,
        windows: measured[i]!,
        speeds: speeds[i]!,
        gains: speeds[i]!.map((speed, window) => speed / speeds[0]![window]!),
        flopsRatio: flops[0]! / flops[i]!,
        time: times[i]!,
      })),
    };
  } finally {
    for (const run of runs) run[Symbol.dispose]();
  }
}

/** Bytes for the first system's texts; no more than the adapter binds for any of the systems. */
function defaultKvBytes(
  device: GpuDevice,
  systems: readonly ThroughputSystem[],
  { rows, meanLength, kvDtype }: ComparisonOptions,
): number {
  const { config } = systems[0]!;
  const [pages] = expectedPages({ config, parts: batchParts(config) }, {
    tokens: Math.ceil(meanLength / 2),
    banks: 1,
  });
  const wanted = TEXTS_PER_ROW * rows * pages! * pageBytes(config, kvDtype);
  const capacity = longestText(meanLength);
  const bindable = systems.map(({ config }) =>
    bindableBytes(device, { config, parts: batchParts(config), capacity, kvDtype })
  );
  return Math.floor(Math.min(wanted, ...bindable));
}
