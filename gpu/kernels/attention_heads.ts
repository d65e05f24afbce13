/** What every attention kernel needs to know of its heads, and of the form of keys and values. */
import attentionKvCode from "./attention_kv.wgsl" with { type: "text" };
import attentionKvF16Code from "./attention_kv_f16.wgsl" with { type: "text" };
import type { AttentionCost, DispatchCost } from "../cost.ts";
import type { Constants } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { ELEMENT_BYTES, type Tensor } from "../tensor.ts";

/** How keys and values are stored: as f32, or two f16 numbers to a u32, the first in its low half. */
export const KV_DTYPES = ["f32", "f16"] as const;
export type KvDtype = typeof KV_DTYPES[number];

/** Keys and values to an element of their tensor. */
export const KV_PER_ELEMENT: Readonly<Record<KvDtype, number>> = { f32: 1, f16: 2 };

/** The part of an attention kernel that reads keys and values. */
export const KV_PARTS = {
  f32: { "attention_kv.wgsl": attentionKvCode },
  f16: { "attention_kv_f16.wgsl": attentionKvF16Code },
} as const;

/** How a tensor of keys and values stores them. */
export function kvDtypeOf({ dtype }: Tensor): KvDtype {
  return dtype === "u32" ? "f16" : "f32";
}

/** Columns of a (rows, ...) tensor where key heads and value heads begin. */
export interface AttentionLayout {
  readonly kOffset: number;
  readonly vOffset: number;
}

/** Sizes and places of the heads. */
export interface AttentionHeads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** Columns of `kv` where the first key head and the first value head begin. */
  readonly layout: AttentionLayout;
}

/** Layout of a fused projection: each row is [H query heads | G key heads | G value heads]. */
export function fusedLayout(
  { heads, kvHeads, headDim }: Omit<AttentionHeads, "layout">,
): AttentionLayout {
  return { kOffset: heads * headDim, vOffset: (heads + kvHeads) * headDim };
}

/** Parts of an attention kernel's work. */
export interface AttentionWork {
  readonly sees: AttentionCost["sees"];
  /** Products over a head's dimension for each pair of a row and a key that it sees. */
  readonly products: number;
  /** Rows of all query heads, for each packed row, and of all key/value heads, for each key, that pass the bus. */
  readonly queryRows: number;
  readonly keyRows: number;
  /** Of the keys that the dispatch does; all of them unless told. */
  readonly part?: number;
}

/** The cost of an attention kernel for the rows of `packing`. */
export function attentionCost(
  { kv, packing }: { kv: Tensor; packing: Packing },
  { heads, kvHeads, headDim }: AttentionHeads,
  { sees, products, queryRows, keyRows, part = 1 }: AttentionWork,
): DispatchCost {
  return {
    rows: packing.rows,
    perRow: { bytes: queryRows * heads * headDim * ELEMENT_BYTES * part },
    attention: {
      packing,
      sees,
      flopsPerPair: 2 * products * heads * headDim * part,
      bytesPerKey: keyRows * kvHeads * headDim * (ELEMENT_BYTES / KV_PER_ELEMENT[kvDtypeOf(kv)]) * part,
    },
  };
}

/**
 * The constants of the heads, sizes and places in vec4.
 *
 * @throws RangeError for a size that is not a multiple of 4 or heads that do not divide; TypeError for tensors whose
 * rows are too short for the heads.
 */
export function headConstants(
  operation: string,
  { q, kv, settings: { heads, kvHeads, headDim, layout } }: {
    q: Tensor;
    kv: Tensor;
    settings: AttentionHeads;
  },
): Constants & { readonly WIDTH: number } {
  const [qStride, kvStride] = [q.shape.at(-1)!, kv.shape.at(-1)! * KV_PER_ELEMENT[kvDtypeOf(kv)]];
  const { kOffset, vOffset } = layout;
  for (const [name, size] of Object.entries({ headDim, qStride, kvStride, kOffset, vOffset })) {
    if (size % 4 !== 0) {
      throw new RangeError(`Cannot record ${operation}: ${name} is ${size}, not a multiple of 4`);
    }
  }
  if (heads % kvHeads !== 0) {
    throw new RangeError(
      `Cannot record ${operation}: ${heads} heads cannot share ${kvHeads} key/value heads`,
    );
  }
  const kvEnd = Math.max(kOffset, vOffset) + kvHeads * headDim;
  if (qStride < heads * headDim || kvStride < kvEnd) {
    throw new TypeError(
      `Cannot record ${operation}: q has ${qStride} columns and kv ${kvStride}, ` +
        `expected at least ${heads * headDim} and ${kvEnd}`,
    );
  }
  return {
    HEADS: heads,
    GROUP_HEADS: heads / kvHeads,
    WIDTH: headDim / 4,
    Q_STRIDE: qStride / 4,
    KV_STRIDE: kvStride / 4,
    K_OFFSET: kOffset / 4,
    V_OFFSET: vOffset / 4,
    SCALE: 1 / Math.sqrt(headDim),
  };
}
