import { packSpans } from "./spans.ts";

/** Where packed rows of a state (B * T, C) stand in it, and which keys they see. */
export interface Packing {
  /** Position of each row in its original sequence; (rows). */
  readonly positions: Int32Array;
  /** `[start, end)` of the key rows of each row's sequence; (rows, 2). */
  readonly spans: Int32Array;
  /** Last key row that each row sees; (rows). */
  readonly last: Int32Array;
}

/**
 * Packs rows of the state, ascending, that see one another: each those of its sequence up to itself.
 *
 * @param lengths packed rows of each sequence, (B)
 */
export function packRows(
  indices: Int32Array,
  { tokens, lengths }: { tokens: number; lengths: ArrayLike<number> },
): Packing {
  return {
    positions: indices.map((row) => row % tokens),
    spans: packSpans(lengths),
    last: indices.map((_, row) => row),
  };
}

/** Packs rows of the state that see every row of their sequence up to themselves, packed or not. */
export function packQueries(indices: Int32Array, { tokens }: { tokens: number }): Packing {
  const spans = new Int32Array(2 * indices.length);
  indices.forEach((row, i) => {
    const start = row - row % tokens;
    spans.set([start, start + tokens], 2 * i);
  });
  return { positions: indices.map((row) => row % tokens), spans, last: indices };
}
