/**
 * What a dispatch has to do at the least, for profiles: its arithmetic, and the bytes that it must read and write when
 * each operand passes the memory's bus once. How much that is may depend on rows that only the GPU knows.
 *
 * Left out is what is small beside the columns of a row: its record, its index, a scale, a norm's weight.
 */
import type { Packing } from "./packing.ts";
import type { Rows } from "./rows.ts";
import { ELEMENT_BYTES } from "./tensor.ts";

/** Floating-point operations, a fused multiply-add being two, and bytes. */
export interface Work {
  readonly flops: number;
  readonly bytes: number;
}

/** The work of a dispatch; all of it is nothing when there are no rows. */
export interface DispatchCost {
  /** Whatever the number of rows: weights, say. */
  readonly fixed?: Partial<Work>;
  /** Of each row. */
  readonly perRow?: Partial<Work>;
  /** Which rows; a cost without them is always the fixed one. */
  readonly rows?: Rows;
  /** Of attention, besides. */
  readonly attention?: AttentionCost;
}

/** Work that depends on which keys each row sees. */
export interface AttentionCost {
  readonly packing: Packing;
  /** Which keys a row sees, by its record: see `KeyRows` of the attention kernel. */
  readonly sees: "packed" | "state" | "cache";
  /** Of a row and a key that it sees. */
  readonly flopsPerPair: number;
  /** Of a key that any row sees. */
  readonly bytesPerKey: number;
}

/** Numbers of 4 bytes that are read or written, one that is read and written twice; and floating-point operations. */
export interface NumberWork {
  readonly numbers: number;
  /** 0 unless given. */
  readonly flops?: number;
}

/** The cost of a kernel that does the same work for each of `columns` columns of a row; one unless told. */
export function rowCost(
  rows: Rows,
  { columns = 1, numbers, flops = 0 }: NumberWork & { readonly columns?: number },
): DispatchCost {
  return { rows, perRow: { flops: flops * columns, bytes: numbers * columns * ELEMENT_BYTES } };
}

/** The cost of a kernel whose work no number of rows changes. */
export function fixedCost({ numbers, flops = 0 }: NumberWork): DispatchCost {
  return { fixed: { flops, bytes: numbers * ELEMENT_BYTES } };
}

/** What was on the GPU when a dispatch ran. */
export interface RowsFound {
  readonly count: number;
  /** The packing's records, four numbers to a row; null without attention. */
  readonly records: Uint32Array | null;
}

/** The work of a dispatch for the rows that it found. */
export function workOf({ fixed, perRow, rows, attention }: DispatchCost, found: RowsFound): Work {
  if (rows && found.count === 0) return { flops: 0, bytes: 0 };
  const seen = attention && found.records
    ? seenKeys(found.records, { count: found.count, sees: attention.sees })
    : { pairs: 0, keys: 0 };
  const count = rows ? found.count : 0;
  return {
    flops: (fixed?.flops ?? 0) + (perRow?.flops ?? 0) * count + (attention?.flopsPerPair ?? 0) * seen.pairs,
    bytes: (fixed?.bytes ?? 0) + (perRow?.bytes ?? 0) * count + (attention?.bytesPerKey ?? 0) * seen.keys,
  };
}

/** Pairs of a row and a key that it sees, and keys that are seen, by the records of packed rows. */
export function seenKeys(
  records: Uint32Array,
  { count, sees }: { count: number; sees: AttentionCost["sees"] },
): { pairs: number; keys: number } {
  let pairs = 0;
  // The most keys that a row of each sequence or text sees: they see all up to some place.
  const most = new Map<number, number>();
  for (let row = 0; row < count; row++) {
    const [position, z, w] = [records[row * 4 + 1]!, records[row * 4 + 2]!, records[row * 4 + 3]!];
    const keys = sees === "packed" ? row - z + 1 : sees === "state" ? position + 1 : w + 1;
    pairs += keys;
    most.set(z, Math.max(most.get(z) ?? 0, keys));
  }
  return { pairs, keys: most.values().reduce((sum, keys) => sum + keys, 0) };
}
