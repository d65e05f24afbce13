/**
 * Which rows have their logits at once. A vocabulary is so much wider than a state that the logits of a whole batch are
 * by far the largest tensor of a step, and may be larger than the adapter can bind. Where only losses are wanted of them
 * they are made, and used up, chunk by chunk of the rows: see head.ts.
 */
import { MemoryError } from "../gpu/errors.ts";
import { type Allocator, formatBytes } from "../gpu/memory.ts";
import { type Rows, staticRows } from "../gpu/rows.ts";
import { createTensor, ELEMENT_BYTES, type Tensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { paddedVocabSize } from "./parameters.ts";

/**
 * Most bytes of a chunk's logits. Each chunk reads the head's weight again and adds to its gradient, so that more rows
 * are less traffic: with these, once for every 128 rows at a vocabulary of 49,152. It is a quarter of what any adapter
 * binds.
 */
const LOGITS_BYTES = 32 * 1024 * 1024;

/** Rows of a matrix product's tile on most adapters: a chunk of fewer would leave some of each tile idle. */
const TILE_ROWS = 64;

/** States have a multiple of 4 columns, so that those of every so many rows lie at places that can be bound. */
const BOUND_ROWS = 16;

/** Rows whose logits exist at once. */
export interface HeadChunk {
  /** Place of the first of them among the rows that the head runs on. */
  readonly first: number;
  readonly rows: Rows;
}

/** The logits, and the chunks of rows that have them one after the other. */
export interface HeadLogits {
  /** (rows of the largest chunk, Vp). */
  readonly logits: Tensor;
  readonly headChunks: readonly HeadChunk[];
}

/** All rows in one chunk, whatever their number on the GPU. */
export function allocateLogits(
  device: Allocator,
  { config, rows }: { config: ModelConfig; rows: Rows },
): HeadLogits {
  const shape = [rows.maximum, paddedVocabSize(config)];
  return { logits: createTensor(device, { shape, label: "logits" }), headChunks: [{ first: 0, rows }] };
}

/**
 * Rows in chunks; one chunk if all their logits keep within the budget.
 *
 * @param rows A count that is known now and stays.
 * @param logitRows Most rows of a chunk, at least 1, rounded up to `BOUND_ROWS`; as `LOGITS_BYTES` has it unless given.
 * @throws MemoryError when the adapter cannot bind the logits of the fewest rows.
 */
export function allocateChunkedLogits(
  device: Allocator,
  { config, rows, logitRows }: { config: ModelConfig; rows: Rows; logitRows?: number | undefined },
): HeadLogits {
  const rowBytes = paddedVocabSize(config) * ELEMENT_BYTES;
  const size = chunkSize(rows.maximum, { rowBytes, bindingLimit: device.bindingLimit, logitRows });
  if (size === rows.maximum) return allocateLogits(device, { config, rows });
  const headChunks = Array.from({ length: Math.ceil(rows.maximum / size) }, (_, i): HeadChunk => {
    const first = i * size;
    return { first, rows: staticRows(device, Math.min(size, rows.maximum - first)) };
  });
  const logits = createTensor(device, { shape: [size, paddedVocabSize(config)], label: "logits" });
  return { logits, headChunks };
}

/** Rows of each chunk but the last, which may have fewer. */
function chunkSize(
  rows: number,
  { rowBytes, bindingLimit, logitRows }: {
    rowBytes: number;
    bindingLimit: number;
    logitRows: number | undefined;
  },
): number {
  const wanted = logitRows === undefined
    ? Math.max(TILE_ROWS, Math.floor(LOGITS_BYTES / rowBytes))
    : Math.ceil(logitRows / BOUND_ROWS) * BOUND_ROWS;
  const most = Math.min(wanted, Math.floor(bindingLimit / rowBytes));
  if (rows <= most) return rows;
  const unit = most < TILE_ROWS ? BOUND_ROWS : TILE_ROWS;
  const largest = Math.floor(most / unit) * unit;
  if (largest === 0) {
    const fewest = Math.min(unit, rows);
    throw new MemoryError(
      `Cannot run the head on ${fewest} rows at once: their logits, ${
        formatBytes(fewest * rowBytes)
      }, are more ` +
        `than the adapter binds, ${formatBytes(bindingLimit)}; choose a model with a smaller vocabulary`,
    );
  }
  // As few chunks as there have to be, all of about one size.
  return Math.ceil(rows / Math.ceil(rows / largest) / unit) * unit;
}
