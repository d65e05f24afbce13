/** Throughput of several models, or of one in several ways, measured in turns on the same memory. */
import type { GpuDevice } from "../../gpu/device.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import type { ModelConfig } from "../config.ts";
import { flopsPerToken } from "../flops.ts";
import type { ModelWeights } from "../model_weights.ts";
import { batchParts } from "./batch_parts.ts";
import { expectedPages, pageBytes } from "./page_store.ts";
import { ThroughputRun, type ThroughputWindow, type TickTime } from "./throughput.ts";

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
  /** For keys and values of each system; null for as much as one and a half texts for each row of the first may need. */
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

/** Texts at a time for each row, where the memory lets them in: see `batchSize`. */
const SLOTS_PER_ROW = 2.5;

/** Texts of the first system for each row that the memory is made for unless told. */
const TEXTS_PER_ROW = 1.5;

/** Part of what the adapter could bind that keys and values take at most. */
const BINDABLE_SHARE = 0.9;

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
    for (const { name, isDepthWise, ...model } of systems) {
      onProgress(done, `filling ${name}`);
      const run = new ThroughputRun(device, model, {
        rows,
        // In step, a batch is as many texts as there are rows.
        slots: isDepthWise ? slots : rows,
        meanLength,
        kvBytes,
        kvDtype,
        isDepthWise,
        seed,
      });
      runs.push(run);
      await run.warmUp();
      done++;
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
  { rows, meanLength: tokens, kvDtype }: ComparisonOptions,
): number {
  const { config } = systems[0]!;
  const [pages] = expectedPages({ config, parts: batchParts(config) }, { tokens, banks: 1 });
  const wanted = TEXTS_PER_ROW * rows * pages! * pageBytes(config, kvDtype);
  const bindable = systems.map(({ config }) => {
    const { entry, block, exit } = batchParts(config);
    return (entry.length + block.length + exit.length) * device.limits.maxStorageBufferBindingSize;
  });
  return Math.floor(Math.min(wanted, BINDABLE_SHARE * Math.min(...bindable)));
}
