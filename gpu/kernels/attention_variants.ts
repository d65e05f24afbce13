/** The attention kernels, put together for every way to load and hold keys and values, and which an adapter can run. */
import attentionCode from "./attention.wgsl" with { type: "text" };
import attentionBackwardCode from "./attention_backward.wgsl" with { type: "text" };
import attentionBackwardTurn32Code from "./attention_backward_turn_32.wgsl" with { type: "text" };
import attentionBackwardTurn8Code from "./attention_backward_turn_8.wgsl" with { type: "text" };
import attentionLoadCode from "./attention_load.wgsl" with { type: "text" };
import attentionLoadSubgroupsCode from "./attention_load_subgroups.wgsl" with { type: "text" };
import attentionRowsCode from "./attention_rows.wgsl" with { type: "text" };
import attentionTileCode from "./attention_tile.wgsl" with { type: "text" };
import attentionTurn32Code from "./attention_turn_32.wgsl" with { type: "text" };
import attentionTurn8Code from "./attention_turn_8.wgsl" with { type: "text" };
import type { GpuDevice } from "../device.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import { KV_PARTS } from "./attention_heads.ts";
import { CACHE_PAGES } from "./cache_pages.ts";
import { hasSubgroupsOfEight } from "./row_lanes.ts";

/** Keys (or queries) of a turn: TURN of the parts. */
export const TURN_KEYS = { separate: 8, subgroups: 32 } as const;

/** The part for keys that lie in rows. */
const ROWS = { "attention_rows.wgsl": attentionRowsCode, ...KV_PARTS.f32 };

/** Keys and values in f32, of packed rows or the state. */
export const FORWARD_KERNELS = loadVariants("attention.wgsl", { code: attentionCode, parts: ROWS });

/** Those of a cache. */
export const CACHED_KERNELS = {
  f32: loadVariants("attention.wgsl", { code: attentionCode, parts: { ...CACHE_PAGES, ...KV_PARTS.f32 } }),
  f16: loadVariants("attention.wgsl", { code: attentionCode, parts: { ...CACHE_PAGES, ...KV_PARTS.f16 } }),
};

/** Gradients; never those of a cache. */
export const BACKWARD_KERNELS = loadVariants("attention_backward.wgsl", {
  code: attentionBackwardCode,
  parts: ROWS,
  turns: {
    separate: { "attention_backward_turn_8.wgsl": attentionBackwardTurn8Code },
    subgroups: { "attention_backward_turn_32.wgsl": attentionBackwardTurn32Code },
  },
});

/** How the invocations of a workgroup read the rows that eight of them share. */
interface AttentionVariant {
  /** By exchange in a subgroup, or each for itself. */
  readonly loads: "subgroups" | "separate";
  /** Invocations of a workgroup, a multiple of 8. */
  readonly lanes: number;
}

/** Ways to attend, by the name that `device.tuning` has for them. */
export const ATTENTION_VARIANTS = {
  subgroup: { loads: "subgroups", lanes: 8 },
  lanes_8: { loads: "separate", lanes: 8 },
  lanes_32: { loads: "separate", lanes: 32 },
  lanes_64: { loads: "separate", lanes: 64 },
} as const satisfies Readonly<Record<string, AttentionVariant>>;

export type AttentionVariantName = keyof typeof ATTENTION_VARIANTS;

/** The kernels that they are made of, for keys and values in f32. */
export const ATTENTION_KERNELS: readonly Kernel[] = [FORWARD_KERNELS, BACKWARD_KERNELS].flatMap((loads) =>
  Object.values(loads)
);

/** Whether an adapter can run a variant at all. */
export function canAttend(device: GpuDevice, name: AttentionVariantName): boolean {
  if (name === "subgroup") return hasSubgroupsOfEight(device);
  return ATTENTION_VARIANTS[name].lanes <= device.limits.maxComputeInvocationsPerWorkgroup;
}

/** The same kernels over the two ways to load eight rows, and with as many rows a turn as suit them. */
function loadVariants(
  file: string,
  { code, parts, turns }: {
    code: string;
    parts: Readonly<Record<string, string>>;
    /** What the kernel itself has for either number. */
    turns?: Readonly<Record<keyof typeof TURN_KEYS, Readonly<Record<string, string>>>>;
  },
): Record<keyof typeof TURN_KEYS, Kernel> {
  const all = { "attention_tile.wgsl": attentionTileCode, ...parts };
  return {
    separate: defineKernel(file, code, {
      ...all,
      "attention_turn_8.wgsl": attentionTurn8Code,
      "attention_load.wgsl": attentionLoadCode,
      ...turns?.separate,
    }),
    subgroups: defineKernel(file, code, {
      ...all,
      "attention_turn_32.wgsl": attentionTurn32Code,
      "attention_load_subgroups.wgsl": attentionLoadSubgroupsCode,
      ...turns?.subgroups,
    }),
  };
}
