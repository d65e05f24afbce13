/** What `mor profile` found, as tables and as JSON. */
import type { AdapterInfo } from "../gpu/adapter.ts";
import type { ReadbackMode } from "../gpu/readback.ts";
import { type InferenceProfile, type KernelTime, type Profile, totalMilliseconds } from "../model/profile.ts";
import { table } from "./table.ts";

export interface ProfileReport {
  readonly adapter: AdapterInfo;
  readonly readback: ReadbackMode;
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
    readonly profile: Profile;
  } | null;
}

/** One object; times in milliseconds, shares from 0 to 1. */
export function reportJson(report: ProfileReport): Record<string, unknown> {
  const { adapter, inference: { prefill, decode, meanDepth }, training } = report;
  return {
    adapter: adapter.description,
    is_software: adapter.isSoftware,
    readback: report.readback,
    model: report.model,
    random_weights: report.hasRandomWeights,
    seed: report.seed,
    repeats: report.repeats,
    prefill: profileJson(prefill),
    decode: {
      context: report.context,
      steps: report.steps,
      ...(meanDepth !== null && { mean_depth: meanDepth }),
      ...profileJson(decode),
    },
    ...(training && {
      train: {
        batch_size: training.batchSize,
        sequence_length: training.sequenceLength,
        ...profileJson(training.profile),
      },
    }),
  };
}

function profileJson(profile: Profile): Record<string, unknown> {
  const { tokens, wallMilliseconds, kernels } = profile;
  return {
    tokens,
    tokens_per_second: tokensPerSecond(profile),
    wall_milliseconds: wallMilliseconds,
    ...(kernels && {
      kernel_milliseconds: totalMilliseconds(kernels),
      kernels_of_wall: totalMilliseconds(kernels) / wallMilliseconds,
      kernels,
    }),
  };
}

/** Tables for people. */
export function reportText(report: ProfileReport): string {
  const { adapter, inference: { prefill, decode, meanDepth }, training, context, steps, repeats } = report;
  const depth = meanDepth === null ? "" : `, mean depth ${meanDepth.toFixed(2)}`;
  const sections = [
    section("prefill", `a prompt of ${prefill.tokens} tokens`, prefill),
    section("decode", `one token, mean of ${steps} steps from ${context} tokens on${depth}`, decode),
  ];
  if (training) {
    const { batchSize, sequenceLength, profile } = training;
    sections.push(section("train", `a step of ${batchSize} x ${sequenceLength} tokens`, profile));
  }
  const hasTimes = prefill.kernels !== null;
  return [
    `adapter   ${adapter.description}${
      adapter.isSoftware ? " (software)" : ""
    }; readback ${report.readback}\n` +
    `model     ${report.model}${report.hasRandomWeights ? ", random weights" : ""}; seed ${report.seed}\n` +
    `times     median of ${repeats}${
      hasTimes ? "; kernels one by one, wall time without timestamps" : ""
    }\n` +
    (hasTimes ? "" : "kernels   not timed: the adapter grants no timestamps\n"),
    ...sections,
  ].join("\n");
}

function section(name: string, what: string, profile: Profile): string {
  const { wallMilliseconds: wall, kernels } = profile;
  const head = `${name.padEnd(10)}${what}\n` +
    `${"".padEnd(10)}${wall.toFixed(3)} ms, ${speed(tokensPerSecond(profile))} tokens/s\n`;
  if (kernels === null) return head;
  const sum = totalMilliseconds(kernels);
  const calls = kernels.reduce((total, kernel) => total + kernel.calls, 0);
  const row = (label: string, { calls, milliseconds, share }: Omit<KernelTime, "label">): string[] => [
    label,
    String(calls),
    milliseconds.toFixed(3),
    percent(share),
  ];
  return head + table([
    ["kernel", "calls", "ms", "share"],
    ...kernels.map((kernel) => row(kernel.label, kernel)),
    row(`sum, ${percent(sum / wall)} of the wall time`, { calls, milliseconds: sum, share: 1 }),
  ], { indent: 2 });
}

function tokensPerSecond({ tokens, wallMilliseconds }: Profile): number {
  return (tokens / wallMilliseconds) * 1000;
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)} %`;
}

function speed(value: number): string {
  return value.toFixed(value < 100 ? 1 : 0);
}
