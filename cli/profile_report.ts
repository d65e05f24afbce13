/** What `mor profile` found: what all forms of the report have in common, and its JSON form. */
import type { AdapterInfo } from "../gpu/adapter.ts";
import { type Ceilings, partOfCeiling } from "../gpu/ceilings.ts";
import type { ReadbackMode } from "../gpu/readback.ts";
import type { ActivationDtype } from "../model/layer_buffers.ts";
import type { InferenceProfile, Profile, TrainingProfile } from "../model/profile.ts";
import { type DepthTime, type GroupTime, totalMilliseconds } from "../model/profile_times.ts";
import { mean, standardDeviation } from "../model/statistics.ts";

export interface ProfileReport {
  readonly adapter: AdapterInfo;
  readonly readback: ReadbackMode;
  /** Null where the adapter grants no timestamps. */
  readonly ceilings: Ceilings | null;
  /** The checkpoint's folder or the preset's name. */
  readonly model: string;
  readonly hasRandomWeights: boolean;
  readonly seed: number;
  readonly repeats: number;
  /** Tokens before the first of the decoding steps, and their number. */
  readonly context: number;
  readonly steps: number;
  readonly inference: InferenceProfile;
  /** Null unless asked for. */
  readonly training: {
    readonly batchSize: number;
    readonly sequenceLength: number;
    /** Whether layers run again for their gradients. */
    readonly recompute: boolean;
    /** How layers store what their gradients need. */
    readonly activationDtype: ActivationDtype;
    readonly profile: TrainingProfile;
  } | null;
}

/** One kind of work in a report. */
export interface ReportSection {
  readonly key: "prefill" | "decode" | "train";
  /** As benchmarks of llama.cpp name it: pp512 is a prompt of 512 tokens, tg32 the generation of 32. */
  readonly test: string;
  readonly what: string;
  readonly profile: Profile;
  /** Of decoding steps. */
  readonly depths: readonly DepthTime[] | null;
}

export function reportSections(report: ProfileReport): ReportSection[] {
  const { inference: { prefill, decode, meanDepth, depths }, training, context, steps } = report;
  const depth = meanDepth === null ? "" : `, mean depth ${meanDepth.toFixed(2)}`;
  const sections: ReportSection[] = [
    {
      key: "prefill",
      test: `pp${prefill.tokens}`,
      what: `a prompt of ${prefill.tokens} tokens`,
      profile: prefill,
      depths: null,
    },
    {
      key: "decode",
      test: `tg${steps}`,
      what: `one token, mean of ${steps} steps from ${context} tokens on${depth}`,
      profile: decode,
      depths,
    },
  ];
  if (training) {
    const { batchSize, sequenceLength, recompute, activationDtype, profile } = training;
    const again = recompute ? ", layers run again for their gradients" : "";
    const stored = activationDtype === "f32" ? "" : `, activations stored as ${activationDtype}`;
    const what = `a step of ${batchSize} x ${sequenceLength} tokens${again}${stored}`;
    sections.push({
      key: "train",
      test: `train ${batchSize}x${sequenceLength}`,
      what,
      profile,
      depths: null,
    });
  }
  return sections;
}

/** Speeds of a piece of work in each repeat. */
export function tokensPerSecond({ tokens, samples }: Profile): number[] {
  return samples.map((milliseconds) => (tokens / milliseconds) * 1000);
}

/** A kernel or a part of the model among the others of its work. */
export interface ReportRow {
  readonly calls: number;
  readonly milliseconds: number;
  /** Of the wall time, 0 to 1. */
  readonly share: number;
  /** Null where a kernel does not say what it has to do. */
  readonly reached: {
    readonly flops: number;
    readonly bytes: number;
    readonly gflopsPerSecond: number;
    readonly gigabytesPerSecond: number;
    /** See `partOfCeiling`. */
    readonly ofCeiling: number;
  } | null;
}

export function reportRow(
  { calls, milliseconds, flops, bytes }: GroupTime,
  { wallMilliseconds, ceilings }: { wallMilliseconds: number; ceilings: Ceilings | null },
): ReportRow {
  const share = milliseconds / wallMilliseconds;
  if (flops === null || bytes === null || ceilings === null) {
    return { calls, milliseconds, share, reached: null };
  }
  const reached = {
    flops,
    bytes,
    gflopsPerSecond: flops / milliseconds / 1e6,
    gigabytesPerSecond: bytes / milliseconds / 1e6,
    ofCeiling: partOfCeiling({ flops, bytes }, { milliseconds, ceilings }),
  };
  return { calls, milliseconds, share, reached };
}

/** One object; times in milliseconds, shares from 0 to 1. */
export function reportJson(report: ProfileReport): Record<string, unknown> {
  const { adapter, inference, training, ceilings } = report;
  const [prefill, decode, train] = reportSections(report).map((section) =>
    sectionJson(section, { ceilings })
  );
  return {
    adapter: adapter.description,
    is_software: adapter.isSoftware,
    readback: report.readback,
    ...(ceilings && {
      ceilings: {
        gflops_per_second: ceilings.flopsPerSecond / 1e9,
        gigabytes_per_second: ceilings.bytesPerSecond / 1e9,
      },
    }),
    model: report.model,
    random_weights: report.hasRandomWeights,
    seed: report.seed,
    repeats: report.repeats,
    record_milliseconds: inference.recordMilliseconds,
    prefill,
    decode: {
      context: report.context,
      steps: report.steps,
      ...(inference.meanDepth !== null && { mean_depth: inference.meanDepth }),
      ...decode,
    },
    ...(training && {
      train: {
        batch_size: training.batchSize,
        sequence_length: training.sequenceLength,
        recompute: training.recompute,
        activations: training.activationDtype,
        record_milliseconds: training.profile.recordMilliseconds,
        ...train,
      },
    }),
  };
}

function sectionJson(
  { test, profile, depths }: ReportSection,
  { ceilings }: { ceilings: Ceilings | null },
): Record<string, unknown> {
  const { tokens, samples, wallMilliseconds, firstRunMilliseconds, gpu } = profile;
  const kernels = gpu ? totalMilliseconds(gpu.kernels) : 0;
  const speeds = tokensPerSecond(profile);
  const row = ({ label, part, ...group }: GroupTime & { label?: string; part?: string }): unknown => ({
    ...(label === undefined ? { part } : { label }),
    ...rowJson(reportRow(group, { wallMilliseconds, ceilings })),
  });
  return {
    test,
    tokens,
    tokens_per_second: (tokens / wallMilliseconds) * 1000,
    tokens_per_second_mean: mean(speeds),
    tokens_per_second_sd: standardDeviation(speeds),
    wall_milliseconds: wallMilliseconds,
    wall_milliseconds_samples: samples,
    first_run_milliseconds: firstRunMilliseconds,
    ...(gpu && {
      kernel_milliseconds: kernels,
      kernels_of_wall: kernels / wallMilliseconds,
      outside_kernels_milliseconds: wallMilliseconds - kernels,
      kernels: gpu.kernels.map(row),
      parts: gpu.parts.map((part) => ({
        ...row(part) as Record<string, unknown>,
        ...(part.rows !== null && { rows: part.rows }),
      })),
    }),
    ...(depths && { depths }),
  };
}

function rowJson({ calls, milliseconds, share, reached }: ReportRow): Record<string, unknown> {
  return {
    calls,
    milliseconds,
    share,
    ...(reached && {
      flops: reached.flops,
      bytes: reached.bytes,
      gflops_per_second: reached.gflopsPerSecond,
      gigabytes_per_second: reached.gigabytesPerSecond,
      of_ceiling: reached.ofCeiling,
    }),
  };
}
