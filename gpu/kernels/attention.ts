import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import type { Constants, Kernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { linearGrid, rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { PAGE_ROWS } from "./cache_pages.ts";
import { attentionCost, type AttentionHeads, headConstants, kvDtypeOf } from "./attention_heads.ts";
import {
  ATTENTION_VARIANTS,
  type AttentionVariantName,
  BACKWARD_KERNELS,
  CACHED_KERNELS,
  FORWARD_KERNELS,
  TURN_KEYS,
} from "./attention_variants.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

/** Rows of an invocation, and of the 8 invocations that share the keys (or queries) of a turn. */
const TILE_ROWS = 4;
const BLOCK_ROWS = 32;

/** The heads, and how much one dispatch does. */
export interface AttentionSettings extends AttentionHeads {
  /** Which rows the rows of `kv` are; the packed rows unless told. */
  readonly keys?: KeyRows;
  /** Most keys that a row sees; all rows unless told. */
  readonly longest?: number;
  /** Keys that one dispatch takes, a multiple of those of a turn; as many as the loop limit allows unless told. */
  readonly window?: number;
  /** As the device is tuned unless told. */
  readonly variant?: AttentionVariantName;
}

/** What the rows of `kv` stand for, and so which of them a query row sees. */
export type KeyRows =
  /** The packed rows themselves: a row sees those of its sequence up to itself. */
  | { readonly kind: "packed" }
  /** The `count` rows of the state, `tokens` a sequence: a row sees its sequence up to its own position. */
  | { readonly kind: "state"; readonly count: number; readonly tokens: number }
  /**
   * The pool of a cache, f32 or f16 (see `KvDtype`), with its `pages` (see `PagedKeys`): all rows are of one text and see
   * its entries 0 to w in the table that begins at place z, the last two of their record, and w never descends from row
   * to row. Forward only.
   */
  | { readonly kind: "cache"; readonly pages: Tensor };

const PACKED: KeyRows = { kind: "packed" };

/** Values of KEYS in attention_tile.wgsl. */
const KEYS = { packed: 0, state: 1, cache: 2 } as const;

/**
 * Records causal attention of every packed row to the keys that it sees. Key/value head g serves the query heads
 * g * H / G to (g + 1) * H / G - 1. Nothing of size T x T is stored.
 *
 * q (rows, at least H * D), head h at column h * D; kv (key rows, ...) as `layout` says; q and kv may be one tensor.
 * out (rows, H * D); logSumExp (rows, H), kept for the backward kernels. All f32, a cache also f16.
 *
 * @throws TypeError for a shape or dtype that does not fit; RangeError for a size that is not a multiple of 4 or heads that do
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
  const { keys: keyRows = PACKED } = settings;
  const { kernels, constants, turn } = prepare("attention", { commands, q, kv, rows, settings });
  checkShape("attention", {
    out: [out, [rows.maximum, heads * headDim]],
    logSumExp: [logSumExp, [rows.maximum, heads]],
  });
  const keys = keysOfBlock({ rows, settings });
  const ranges = windows({ count: keys, settings, turn, loops: 1 + 2 * (constants.WIDTH + 1) });
  for (const range of ranges) {
    commands.dispatch(kernels.forward, {
      entryPoint: "forward",
      tensors: {
        rows: rows.count,
        packing: records,
        ...(keyRows.kind === "cache" && { pages: keyRows.pages }),
        q,
        kv,
        out,
        log_sum_exp: logSumExp,
      },
      settings: range,
      constants,
      grid: rowGrid(rows, { unitsPerGroup: TILE_ROWS * constants.LANES, z: heads }),
      // Two products: q k^T, and the weights times v.
      cost: attentionCost({ kv, packing }, settings, {
        sees: keyRows.kind,
        products: 2,
        queryRows: 2,
        keyRows: 2,
        part: 1 / ranges.length,
      }),
    });
  }
}

/**
 * Records the gradients of `attention`. The columns of gradQ and gradKv that hold heads are overwritten, others stay;
 * with `accumulate` gradKv is added to. They may be one tensor, as q and kv may. delta (rows, H) is scratch: sum of
 * gradOut * out per head.
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
  { accumulate = false, ...settings }: AttentionSettings & { readonly accumulate?: boolean },
): void {
  const { rows, records } = packing;
  const { heads, kvHeads, headDim, keys = PACKED } = settings;
  if (keys.kind === "cache") throw new TypeError("Cannot record attentionBackward: a cache has no gradient");
  const { kernels, constants, turn } = prepare("attentionBackward", { commands, q, kv, rows, settings });
  checkShape("attentionBackward", {
    out: [out, [rows.maximum, heads * headDim]],
    gradOut: [gradOut, [rows.maximum, heads * headDim]],
    logSumExp: [logSumExp, [rows.maximum, heads]],
    delta: [delta, [rows.maximum, heads]],
    gradQ: [gradQ, [rows.maximum, q.shape.at(-1)!]],
    gradKv: [gradKv, kv.shape],
  });
  const { LANES, WIDTH } = constants;
  const [keyRows, sequence] = keys.kind === "state" ? [keys.count, keys.tokens] : [0, 1];
  commands.dispatch(kernels.backward, {
    entryPoint: "backward_delta",
    tensors: { rows: rows.count, out, grad_out: gradOut, delta },
    constants,
    grid: rowGrid(rows, { unitsPerRow: heads, unitsPerGroup: LANES }),
    cost: rowCost(rows, { columns: heads * headDim, numbers: 2, flops: 2 }),
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
  const keysSeen = keysOfBlock({ rows, settings });
  const keyRanges = windows({ count: keysSeen, settings, turn, loops: 1 + 3 * (WIDTH + 1) });
  for (const range of keyRanges) {
    commands.dispatch(kernels.backward, {
      entryPoint: "backward_queries",
      tensors: { ...inputs, grad_q: gradQ },
      settings: range,
      constants,
      grid: rowGrid(rows, { unitsPerGroup: TILE_ROWS * LANES, z: heads }),
      // Scores again, gradOut v^T, and the scores' gradient times k.
      cost: attentionCost({ kv, packing }, settings, {
        sees: keys.kind,
        products: 3,
        queryRows: 3,
        keyRows: 2,
        part: 1 / keyRanges.length,
      }),
    });
  }
  const queries = keyRows > 0 ? rows.maximum : keysSeen;
  const queryRanges = windows({
    count: queries,
    settings,
    turn,
    loops: (heads / kvHeads) * (1 + 3 * (WIDTH + 1)),
  });
  for (const range of queryRanges) {
    const grid = { unitsPerGroup: TILE_ROWS * LANES, z: kvHeads };
    commands.dispatch(kernels.backward, {
      entryPoint: "backward_keys",
      tensors: { ...inputs, grad_kv: gradKv },
      settings: range,
      constants: {
        ...constants,
        KEY_ROWS: keyRows,
        SEQUENCE: sequence,
        ACCUMULATE_KV: Number(accumulate),
      },
      grid: keyRows > 0
        ? linearGrid(Math.ceil(keyRows / grid.unitsPerGroup), { z: grid.z })
        : rowGrid(rows, grid),
      // Scores again, gradOut v^T, the scores' gradient times q, and the weights times gradOut.
      cost: attentionCost({ kv, packing }, settings, {
        sees: keys.kind,
        products: 4,
        queryRows: 2,
        keyRows: accumulate ? 6 : 4,
        part: 1 / queryRanges.length,
      }),
    });
  }
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
  /** Keys, or queries, of a turn. */
  turn: number;
} {
  const { keys = PACKED, variant = device.tuning.attention } = settings;
  const { loads, lanes } = ATTENTION_VARIANTS[variant];
  const shape = headConstants(operation, { q, kv, settings });
  const dtype = kvDtypeOf(kv);
  if (dtype !== "f32" && keys.kind !== "cache") {
    throw new TypeError(`Cannot record ${operation}: kv is ${dtype}, expected f32 where it is no cache`);
  }
  const keyRows = keys.kind === "packed" ? rows.maximum : keys.kind === "state" ? keys.count : 0;
  checkShape(operation, {
    q: [q, [rows.maximum, q.shape.at(-1)!]],
    kv: [kv, [keyRows, kv.shape.at(-1)!]],
  });
  const constants = {
    ...shape,
    ...(keys.kind === "cache" && { PAGE_ROWS }),
    KEYS: KEYS[keys.kind],
    LANES: lanes,
  };
  const forward = keys.kind === "cache" ? CACHED_KERNELS[dtype] : FORWARD_KERNELS;
  const kernels = { forward: forward[loads], backward: BACKWARD_KERNELS[loads] };
  return { kernels, constants, turn: TURN_KEYS[loads] };
}

/** Most keys from the first that a block of rows sees to the last. */
function keysOfBlock(
  { rows, settings: { longest = rows.maximum, keys = PACKED } }: { rows: Rows; settings: AttentionSettings },
): number {
  // The rows of a block may belong to many sequences; packed ones stand side by side there.
  if (keys.kind === "state") return Math.min(BLOCK_ROWS * keys.tokens, keys.count);
  return keys.kind === "cache" ? longest : Math.min(longest + BLOCK_ROWS, rows.maximum);
}

/**
 * The part of a block's keys (or queries) that each dispatch does: few enough that no invocation comes near the loop
 * limit at `loops` loop turns for the `turn` keys that it takes at a time and some for each column outside. A loop's last
 * check is a turn, too.
 *
 * @throws RangeError for a window that is not a multiple of `turn`.
 */
function windows(
  { count, settings: { headDim, window }, turn, loops }: {
    count: number;
    settings: AttentionSettings;
    turn: number;
    loops: number;
  },
): { first: number; count: number }[] {
  const step = window ?? turn * Math.floor((MAX_LOOP_TURNS - headDim) / loops);
  if (step % turn !== 0) {
    throw new RangeError(`Cannot record attention in windows of ${step} keys: not a multiple of ${turn}`);
  }
  return Array.from({ length: Math.ceil(count / step) }, (_, i) => ({ first: i * step, count: step }));
}
