import embeddingCode from "./embedding.wgsl" with { type: "text" };
import packedQuadsCode from "./packed_quads.wgsl" with { type: "text" };
import packedWeightsCode from "./packed_weights.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { type Matrix, matrixRowBytes, matrixTensor, rowWindows } from "../packed_matrix.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, ELEMENT_BYTES, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";
import { formatConstant } from "./weight_format.ts";

const EMBEDDING = defineKernel("embedding.wgsl", embeddingCode, {
  "packed_weights.wgsl": packedWeightsCode,
  "packed_quads.wgsl": packedQuadsCode,
});

/** Constants GROUP and CHUNK of the file. */
const GROUP = 64;
const CHUNK = 64;

/** Records out[t] = weight[ids[t]]. ids (rows) u32, weight (V, C) in any format, out (rows, C) f32. */
export function embedding(
  commands: Commands,
  { ids, weight, out }: { ids: Tensor; weight: Matrix; out: Tensor },
  { rows }: { rows: Rows },
): void {
  const [vocabSize, dim] = weight.shape as [number, number];
  const rowBytes = matrixRowBytes(weight) + dim * ELEMENT_BYTES;
  checkShape("embedding", { ids: [ids, [rows.maximum]], out: [out, [rows.maximum, dim]] });
  for (const { matrix, start, count } of rowWindows(commands.device, weight)) {
    const table = matrixTensor(matrix);
    commands.dispatch(EMBEDDING, {
      entryPoint: "forward",
      tensors: { rows: rows.count, ids, weight: table, weight_words: table, out },
      settings: { first: start, count },
      constants: { DIM: dim, ...formatConstant(weight) },
      grid: rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP }),
      // Of a cut table each dispatch finds some of the rows, which only the ids tell: their sum is right.
      cost: { rows, perRow: { bytes: rowBytes * (count / vocabSize) } },
    });
  }
}

/** Rows of a batch in the order of their tokens: what `embeddingBackward` needs besides the ids. */
export interface TokenGroups {
  /** Row numbers sorted by id, rows of one id ascending. */
  readonly order: Uint32Array<ArrayBuffer>;
  /** For each place in `order`, the place where its id begins. */
  readonly starts: Uint32Array<ArrayBuffer>;
}

/** Sorts the rows of a batch by token, by counting: O(rows + vocabSize). */
export function groupByToken(ids: ArrayLike<number>, { vocabSize }: { vocabSize: number }): TokenGroups {
  const first = new Uint32Array(vocabSize + 1);
  for (let t = 0; t < ids.length; t++) first[ids[t]! + 1]!++;
  for (let v = 0; v < vocabSize; v++) first[v + 1]! += first[v]!;
  const next = first.slice();
  const order = new Uint32Array(ids.length);
  const starts = new Uint32Array(ids.length);
  for (let t = 0; t < ids.length; t++) {
    const place = next[ids[t]!]!++;
    order[place] = t;
    starts[place] = first[ids[t]!]!;
  }
  return { order, starts };
}

/**
 * Records the gradient of `embedding`: gradWeight (V, C) is added to, rows of absent ids stay untouched.
 * ids, order, starts (rows) u32, the latter two from `groupByToken`; gradOut (rows, C) is used up as working memory.
 *
 * @throws RangeError for more rows than the kernel can loop over.
 */
export function embeddingBackward(
  commands: Commands,
  { ids, order, starts, gradOut, gradWeight }: {
    ids: Tensor;
    order: Tensor;
    starts: Tensor;
    gradOut: Tensor;
    gradWeight: Tensor;
  },
  { rows }: { rows: Rows },
): void {
  const dim = gradWeight.shape.at(-1)!;
  const shape = [rows.maximum];
  checkShape("embeddingBackward", {
    ids: [ids, shape],
    order: [order, shape],
    starts: [starts, shape],
    gradOut: [gradOut, [rows.maximum, dim]],
  });
  if (rows.maximum > CHUNK * MAX_LOOP_TURNS) {
    throw new RangeError(
      `Cannot sum the embedding's gradient over ${rows.maximum} rows, at most ${CHUNK * MAX_LOOP_TURNS}; ` +
        "lower --batch-size or --sequence-length",
    );
  }
  const constants = { DIM: dim, ...formatConstant(gradWeight) };
  const grid = rowGrid(rows, { unitsPerRow: dim / 4, unitsPerGroup: GROUP });
  const tensors = { rows: rows.count, order, starts, grad_out: gradOut };
  commands.dispatch(EMBEDDING, {
    entryPoint: "backward_chunks",
    tensors,
    constants,
    grid,
    // Every gradient is read; how many sums are written, here and below, only the ids tell.
    cost: rowCost(rows, { columns: dim, numbers: 1 }),
  });
  for (const { matrix, start, count } of rowWindows(commands.device, gradWeight)) {
    commands.dispatch(EMBEDDING, {
      entryPoint: "backward_weight",
      tensors: { ...tensors, ids, grad_weight: matrix },
      settings: { first: start, count },
      constants,
      grid,
      cost: rowCost(rows, { numbers: 1 }),
    });
  }
}
