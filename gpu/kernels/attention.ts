import attentionCode from "./attention.wgsl" with { type: "text" };
import attentionBackwardCode from "./attention_backward.wgsl" with { type: "text" };
import attentionLoadCode from "./attention_load.wgsl" with { type: "text" };
import attentionLoadSubgroupsCode from "./attention_load_subgroups.wgsl" with { type: "text" };
import attentionTileCode from "./attention_tile.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { type Constants, defineKernel, type Kernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { hasSubgroupsOfEight, MAX_LOOP_TURNS } from "./row_lanes.ts";

/** Rows of an invocation, keys (or queries) of a turn, and rows of the 8 invocations that share them. */
const TILE_ROWS = 4;
const TILE_KEYS = 8;
const BLOCK_ROWS = 32;

const FORWARD = loadVariants("attention.wgsl", attentionCode);
const BACKWARD = loadVariants("attention_backward.wgsl", attentionBackwardCode);

/** Sizes and places of the heads, and how much one dispatch does. */
export interface AttentionSettings {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Columns of `kv` where the first key head and the first value head begin. */
  readonly layout: AttentionLayout;
  /** Most rows that a sequence has; all rows unless told. */
  readonly longest?: number;
  /** Keys that one dispatch takes, a multiple of 8; as many as the loop limit allows unless told. */
  readonly window?: number;
  /** Whether 8 invocations exchange what they read; where the adapter is known to do it well unless told. */
  readonly useSubgroups?: boolean;
}

/** Columns of a (rows, ...) tensor where key heads and value heads begin. */
export interface AttentionLayout {
  readonly kOffset: number;
  readonly vOffset: number;
}

/** Layout of a fused projection: each row is [H query heads | G key heads | G value heads]. */
export function fusedLayout(
  { heads, kvHeads, headDim }: Pick<AttentionSettings, "heads" | "kvHeads" | "headDim">,
): AttentionLayout {
  return { kOffset: heads * headDim, vOffset: (heads + kvHeads) * headDim };
}

/**
 * Records causal attention of every packed row to the rows of its sequence up to itself. Key/value head g serves the
 * query heads g * H / G to (g + 1) * H / G - 1. Nothing of size T x T is stored.
 *
 * q (rows, at least H * D), head h at column h * D; kv (rows, ...) as `layout` says; q and kv may be one tensor.
 * out (rows, H * D); logSumExp (rows, H), kept for the backward kernels. All f32.
 *
 * @throws TypeError for a shape that does not fit; RangeError for a size that is not a multiple of 4 or heads that do
 * not divide.
 */
export function attention(
  commands: Commands,
  { q, kv, packing, out, logSumExp }: {
    q: Tensor;
    kv: Tensor;
    packing: Packing;
    out: Tensor;
    logSumExp: Tensor;
  },
  settings: AttentionSettings,
): void {
  const { rows, records } = packing;
  const { heads, headDim } = settings;
  const { kernels, constants } = prepare("attention", { commands, q, kv, rows, settings });
  checkShape("attention", {
    out: [out, [rows.maximum, heads * headDim]],
    logSumExp: [logSumExp, [rows.maximum, heads]],
  });
  for (const range of windows({ rows, settings, turns: 1 + 2 * (constants.WIDTH + 1) })) {
    commands.dispatch(kernels.forward, {
      entryPoint: "forward",
      tensors: { rows: rows.count, packing: records, q, kv, out, log_sum_exp: logSumExp },
      settings: range,
      constants,
      grid: rowGrid(rows, { unitsPerGroup: TILE_ROWS * constants.LANES, z: heads }),
    });
  }
}

/**
 * Records the gradients of `attention`. The columns of gradQ and gradKv that hold heads are overwritten, others stay;
 * they may be one tensor, as q and kv may. delta (rows, H) is scratch: sum of gradOut * out per head.
 *
 * @throws as `attention` does.
 */
export function attentionBackward(
  commands: Commands,
  { q, kv, packing, out, logSumExp, gradOut, gradQ, gradKv, delta }: {
    q: Tensor;
    kv: Tensor;
    packing: Packing;
    out: Tensor;
    logSumExp: Tensor;
    gradOut: Tensor;
    gradQ: Tensor;
    gradKv: Tensor;
    delta: Tensor;
  },
  settings: AttentionSettings,
): void {
  const { rows, records } = packing;
  const { heads, kvHeads, headDim } = settings;
  const { kernels, constants } = prepare("attentionBackward", { commands, q, kv, rows, settings });
  checkShape("attentionBackward", {
    out: [out, [rows.maximum, heads * headDim]],
    gradOut: [gradOut, [rows.maximum, heads * headDim]],
    logSumExp: [logSumExp, [rows.maximum, heads]],
    delta: [delta, [rows.maximum, heads]],
    gradQ: [gradQ, [rows.maximum, q.shape.at(-1)!]],
    gradKv: [gradKv, [rows.maximum, kv.shape.at(-1)!]],
  });
  const { LANES, WIDTH } = constants;
  commands.dispatch(kernels.backward, {
    entryPoint: "backward_delta",
    tensors: { rows: rows.count, out, grad_out: gradOut, delta },
    constants,
    grid: rowGrid(rows, { unitsPerRow: heads, unitsPerGroup: LANES }),
  });
  const inputs = {
    rows: rows.count,
    packing: records,
    q,
    kv,
    log_sum_exp: logSumExp,
    grad_out: gradOut,
    delta,
  };
  for (const range of windows({ rows, settings, turns: 1 + 3 * (WIDTH + 1) })) {
    commands.dispatch(kernels.backward, {
      entryPoint: "backward_queries",
      tensors: { ...inputs, grad_q: gradQ },
      settings: range,
      constants,
      grid: rowGrid(rows, { unitsPerGroup: TILE_ROWS * LANES, z: heads }),
    });
  }
  for (const range of windows({ rows, settings, turns: (heads / kvHeads) * (1 + 3 * (WIDTH + 1)) })) {
    commands.dispatch(kernels.backward, {
      entryPoint: "backward_keys",
      tensors: { ...inputs, grad_kv: gradKv },
      settings: range,
      constants,
      grid: rowGrid(rows, { unitsPerGroup: TILE_ROWS * LANES, z: kvHeads }),
    });
  }
}

/** The same kernels over the two ways to load eight rows. */
function loadVariants(file: string, code: string): { separate: Kernel; subgroups: Kernel } {
  const tile = { "attention_tile.wgsl": attentionTileCode };
  return {
    separate: defineKernel(file, code, { ...tile, "attention_load.wgsl": attentionLoadCode }),
    subgroups: defineKernel(file, code, {
      ...tile,
      "attention_load_subgroups.wgsl": attentionLoadSubgroupsCode,
    }),
  };
}

/** Checks what both directions need and finds the kernels and constants for it. */
function prepare(
  operation: string,
  { commands: { device }, q, kv, rows, settings }: {
    commands: Commands;
    q: Tensor;
    kv: Tensor;
    rows: Rows;
    settings: AttentionSettings;
  },
): {
  kernels: { forward: Kernel; backward: Kernel };
  constants: Constants & { readonly LANES: number; readonly WIDTH: number };
} {
  const { heads, kvHeads, headDim, layout, useSubgroups = hasSubgroupsOfEight(device) } = settings;
  const [qStride, kvStride] = [q.shape.at(-1)!, kv.shape.at(-1)!];
  for (const [name, size] of Object.entries({ headDim, qStride, kvStride, ...layout })) {
    if (size % 4 !== 0) {
      throw new RangeError(`Cannot record ${operation}: ${name} is ${size}, not a multiple of 4`);
    }
  }
  if (heads % kvHeads !== 0) {
    throw new RangeError(
      `Cannot record ${operation}: ${heads} heads cannot share ${kvHeads} key/value heads`,
    );
  }
  const kvEnd = Math.max(layout.kOffset, layout.vOffset) + kvHeads * headDim;
  if (qStride < heads * headDim || kvStride < kvEnd) {
    throw new TypeError(
      `Cannot record ${operation}: q has ${qStride} columns and kv ${kvStride}, ` +
        `expected at least ${heads * headDim} and ${kvEnd}`,
    );
  }
  checkShape(operation, { q: [q, [rows.maximum, qStride]], kv: [kv, [rows.maximum, kvStride]] });
  const variant = useSubgroups ? "subgroups" : "separate";
  const constants = {
    HEADS: heads,
    GROUP_HEADS: heads / kvHeads,
    WIDTH: headDim / 4,
    Q_STRIDE: qStride / 4,
    KV_STRIDE: kvStride / 4,
    K_OFFSET: layout.kOffset / 4,
    V_OFFSET: layout.vOffset / 4,
    SCALE: 1 / Math.sqrt(headDim),
    LANES: useSubgroups || device.info.isSoftware ? 8 : 32,
  };
  return { kernels: { forward: FORWARD[variant], backward: BACKWARD[variant] }, constants };
}

/**
 * The part of the longest sequence that each dispatch does: few enough keys that no invocation comes near the loop
 * limit at `turns` loop turns for a tile of keys and some for each column outside. A loop's last check is a turn, too.
 */
function windows(
  { rows, settings: { headDim, longest = rows.maximum, window }, turns }: {
    rows: Rows;
    settings: AttentionSettings;
    turns: number;
  },
): { first: number; count: number }[] {
  const count = window ?? TILE_KEYS * Math.floor((MAX_LOOP_TURNS - headDim) / turns);
  // A block of rows reaches from the start of its first row's sequence to its own last row.
  const keys = Math.min(longest + BLOCK_ROWS, rows.maximum);
  return Array.from({ length: Math.ceil(keys / count) }, (_, i) => ({ first: i * count, count }));
}
