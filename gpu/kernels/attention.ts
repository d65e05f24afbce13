import attentionCode from "./attention.wgsl" with { type: "text" };
import attentionBackwardCode from "./attention_backward.wgsl" with { type: "text" };
import attentionLoadCode from "./attention_load.wgsl" with { type: "text" };
import attentionLoadSubgroupsCode from "./attention_load_subgroups.wgsl" with { type: "text" };
import attentionTileCode from "./attention_tile.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { type Constants, defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

/** How 8 invocations that need the same rows get them. */
const LOADS = { separate: attentionLoadCode, subgroups: attentionLoadSubgroupsCode } as const;

const FORWARD = attentionKernels("attention", attentionCode);
const BACKWARD = attentionKernels("attention_backward", attentionBackwardCode);

/** Rows of one invocation, and keys (or queries) that it meets per turn. */
const TILE_ROWS = 4;
const TILE_KEYS = 8;

/** Where the heads are, and how much one dispatch does. */
export interface AttentionSettings {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Column of the first key head and of the first value head in a row of `kv`. */
  readonly layout: { readonly kOffset: number; readonly vOffset: number };
  /** Most rows of a sequence; all rows unless told. */
  readonly longest?: number;
  /** Most keys that one dispatch takes, a multiple of 8; as many as the loop limit allows unless told. */
  readonly window?: number;
}

/** Columns of a fused projection (rows, (H + 2 G) * D), as `layout` of its keys and values. */
export function fusedLayout(
  { heads, kvHeads, headDim }: { heads: number; kvHeads: number; headDim: number },
): { kOffset: number; vOffset: number } {
  return { kOffset: heads * headDim, vOffset: (heads + kvHeads) * headDim };
}

/**
 * Records causal attention of each row to the rows of its sequence up to itself, with heads grouped over key/value
 * heads. Without a T x T tensor: out and logSumExp are all that is written.
 *
 * q (rows, at least H * D) from column 0; kv (rows, ...) with G key heads and G value heads at `layout`; both may be
 * one tensor. out (rows, H * D), logSumExp (rows, H). All f32.
 *
 * @throws TypeError for a shape that does not fit, RangeError for sizes that are not multiples of 4 or heads that
 * cannot be grouped.
 */
export function attention(
  commands: Commands,
  { q, kv, packing, out, logSumExp }: { q: Tensor; kv: Tensor; packing: Packing; out: Tensor; logSumExp: Tensor },
  settings: AttentionSettings,
): void {
  const { rows, records } = packing;
  const constants = attentionConstants("attention", { q, kv, rows, settings, isSoftware: commands.device.info.isSoftware });
  checkShape("attention", outputShapes({ rows, settings, out, logSumExp }));
  const turns = 1 + 2 * (settings.headDim / 4);
  for (const range of windows({ rows, settings, turns })) {
    commands.dispatch(ATTENTION, {
      entryPoint: "forward",
      tensors: { rows: rows.count, packing: records, q, kv, out, log_sum_exp: logSumExp },
      settings: range,
      constants,
      grid: rowGrid(rows, { unitsPerGroup: TILE_ROWS * constants.LANES, z: settings.heads }),
    });
  }
}

/**
 * Records the gradients of `attention`: gradQ is overwritten where q has heads and gradKv where kv has keys and values.
 * They may be one tensor. delta (rows, H) is room for the kernels.
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
  const constants = attentionConstants("attentionBackward", {
    q,
    kv,
    rows,
    settings,
    isSoftware: commands.device.info.isSoftware,
  });
  checkShape("attentionBackward", {
    ...outputShapes({ rows, settings, out, logSumExp }),
    gradOut: [gradOut, [rows.maximum, heads * headDim]],
    delta: [delta, [rows.maximum, heads]],
    gradQ: [gradQ, [rows.maximum, q.shape.at(-1)!]],
    gradKv: [gradKv, [rows.maximum, kv.shape.at(-1)!]],
  });
  const { LANES, HEADS, WIDTH } = constants;
  commands.dispatch(ATTENTION_BACKWARD, {
    entryPoint: "backward_delta",
    tensors: { rows: rows.count, out, grad_out: gradOut, delta },
    constants,
    grid: rowGrid(rows, { unitsPerRow: HEADS, unitsPerGroup: LANES }),
  });
  const inputs = { rows: rows.count, packing: records, q, kv, log_sum_exp: logSumExp, grad_out: gradOut, delta };
  for (const range of windows({ rows, settings, turns: 1 + 3 * WIDTH })) {
    commands.dispatch(ATTENTION_BACKWARD, {
      entryPoint: "backward_queries",
      tensors: { ...inputs, grad_q: gradQ },
      settings: range,
      constants,
      grid: rowGrid(rows, { unitsPerGroup: TILE_ROWS * LANES, z: heads }),
    });
  }
  for (const range of windows({ rows, settings, turns: (heads / kvHeads) * (1 + 4 * WIDTH) })) {
    commands.dispatch(ATTENTION_BACKWARD, {
      entryPoint: "backward_keys",
      tensors: { ...inputs, grad_kv: gradKv },
      settings: range,
      constants,
      grid: rowGrid(rows, { unitsPerGroup: TILE_ROWS * LANES, z: kvHeads }),
    });
  }
}

type AttentionConstants = Constants & { readonly LANES: number; readonly HEADS: number; readonly WIDTH: number };

function attentionConstants(
  operation: string,
  { q, kv, rows, settings: { heads, kvHeads, headDim, layout }, isSoftware }: {
    q: Tensor;
    kv: Tensor;
    rows: Rows;
    settings: AttentionSettings;
    isSoftware: boolean;
  },
): AttentionConstants {
  const qStride = q.shape.at(-1)!;
  const kvStride = kv.shape.at(-1)!;
  const columns = { headDim, qStride, kvStride, ...layout };
  for (const [name, size] of Object.entries(columns)) {
    if (size % 4 !== 0) throw new RangeError(`Cannot record ${operation}: ${name} is ${size}, not a multiple of 4`);
  }
  if (heads % kvHeads !== 0) {
    throw new RangeError(`Cannot record ${operation}: ${heads} heads cannot share ${kvHeads} key/value heads`);
  }
  const kvEnd = Math.max(layout.kOffset, layout.vOffset) + kvHeads * headDim;
  if (qStride < heads * headDim || kvStride < kvEnd) {
    throw new TypeError(
      `Cannot record ${operation}: q has ${qStride} columns and kv ${kvStride}, ` +
        `expected at least ${heads * headDim} and ${kvEnd}`,
    );
  }
  checkShape(operation, { q: [q, [rows.maximum, qStride]], kv: [kv, [rows.maximum, kvStride]] });
  return {
    HEADS: heads,
    GROUP_HEADS: heads / kvHeads,
    WIDTH: headDim / 4,
    Q_STRIDE: qStride / 4,
    KV_STRIDE: kvStride / 4,
    K_OFFSET: layout.kOffset / 4,
    V_OFFSET: layout.vOffset / 4,
    SCALE: 1 / Math.sqrt(headDim),
    LANES: isSoftware ? 8 : 64,
  };
}

function outputShapes(
  { rows: { maximum }, settings: { heads, headDim }, out, logSumExp }: {
    rows: Rows;
    settings: AttentionSettings;
    out: Tensor;
    logSumExp: Tensor;
  },
): Record<string, readonly [Tensor, readonly number[]]> {
  return { out: [out, [maximum, heads * headDim]], logSumExp: [logSumExp, [maximum, heads]] };
}

/**
 * What each dispatch does of the longest sequence, so that no invocation comes near the loop limit at `turns` turns
 * for each tile of keys and a few for each column.
 */
function windows(
  { rows, settings: { headDim, longest = rows.maximum, window }, turns }: {
    rows: Rows;
    settings: AttentionSettings;
    turns: number;
  },
): { first: number; count: number }[] {
  const count = window ?? TILE_KEYS * Math.floor((MAX_LOOP_TURNS - headDim) / turns);
  // The keys of a tile of rows reach back from its last row to the start of its first row's sequence.
  const keys = Math.min(longest + TILE_ROWS, rows.maximum);
  return Array.from({ length: Math.ceil(keys / count) }, (_, i) => ({ first: i * count, count }));
}
