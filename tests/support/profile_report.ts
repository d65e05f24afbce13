/** A profile report with numbers that are easy to check by hand. */
import type { ProfileReport } from "../../cli/profile_report.ts";
import type { DispatchTime } from "../../gpu/timing.ts";
import type { GpuProfile, Profile } from "../../model/profile.ts";

const NOTHING = { work: null, rows: null } as const;

/** Three dispatches of two parts. */
const TIMELINE: readonly DispatchTime[] = [
  {
    label: "matmul product",
    part: "first layers",
    startMilliseconds: 0,
    milliseconds: 4,
    work: { flops: 8e6, bytes: 2e6 },
    rows: 10,
  },
  { label: "gate <forward>", part: "first layers", startMilliseconds: 5, milliseconds: 1, ...NOTHING },
  {
    label: "matmul product",
    part: "head, backward",
    startMilliseconds: 7,
    milliseconds: 4,
    work: { flops: 8e6, bytes: 2e6 },
    rows: 10,
  },
];

const GPU: GpuProfile = {
  kernels: [
    { label: "matmul product", calls: 2, milliseconds: 8, flops: 16e6, bytes: 4e6 },
    { label: "gate <forward>", calls: 1, milliseconds: 1, flops: null, bytes: null },
  ],
  parts: [
    { part: "first layers", calls: 2, milliseconds: 5, flops: null, bytes: null, rows: 2.5 },
    { part: "head, backward", calls: 1, milliseconds: 4, flops: 8e6, bytes: 2e6, rows: null },
  ],
  timeline: TIMELINE,
};

/** 10 tokens in 20 ms, of which kernels take 9; ceilings of 4 GFLOP/s and 2 GB/s. */
export function exampleReport({ hasTimestamps }: { hasTimestamps: boolean }): ProfileReport {
  const profile: Profile = {
    tokens: 10,
    samples: [16, 20, 24],
    wallMilliseconds: 20,
    firstRunMilliseconds: 7,
    gpu: hasTimestamps ? GPU : null,
  };
  return {
    adapter: { description: "an adapter", vendor: "", isSoftware: false, subgroupSize: null },
    readback: "awaited",
    ceilings: hasTimestamps ? { flopsPerSecond: 4e9, bytesPerSecond: 2e9 } : null,
    model: "a, model",
    hasRandomWeights: false,
    seed: 3,
    repeats: 3,
    context: 10,
    steps: 4,
    inference: {
      prefill: profile,
      decode: { ...profile, tokens: 1 },
      recordMilliseconds: 30,
      meanDepth: hasTimestamps ? 2 : null,
      depths: hasTimestamps ? [{ depth: 2, steps: 4, milliseconds: 9 }] : null,
    },
    training: null,
  };
}
