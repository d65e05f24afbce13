import type { ModelConfig, RecursionConfig } from "../../model/config.ts";

/**
 * Indices of unique layers in the order in which a recursive model runs them: before, inside and after the
 * recursion.
 */
export interface LayerPlan {
  readonly before: readonly number[];
  readonly block: readonly number[];
  readonly after: readonly number[];
}

function upTo(count: number, { from = 0 } = {}): number[] {
  return Array.from({ length: count }, (_, i) => from + i);
}

/**
 * The parts of a model whose block is repeated as a whole: cycle 0..b-1, middle_cycle 0 | 1..b | b+1.
 *
 * @throws RangeError for the sequence strategies, whose repetitions are not contiguous
 */
export function layerPlan({ sharing, blockLayers }: RecursionConfig): LayerPlan {
  if (sharing === "cycle") return { before: [], block: upTo(blockLayers), after: [] };
  if (sharing === "middle_cycle") {
    return { before: [0], block: upTo(blockLayers, { from: 1 }), after: [blockLayers + 1] };
  }
  throw new RangeError(`Sharing ${sharing} has no block that could be repeated as a whole`);
}

/**
 * Unique layer of each unrolled layer, u(l): cycle l mod b, sequence floor(l / N); the middle strategies keep
 * the first and the last layer apart.
 *
 * With b = 3, N = 2: cycle 012012, sequence 001122, middle_cycle 01231234.
 */
export function unrolledLayers({ recursion, numHiddenLayers }: ModelConfig): number[] {
  if (!recursion) return upTo(numHiddenLayers);
  const { sharing, numRecursions, blockLayers } = recursion;
  const isCycle = sharing.endsWith("cycle");
  const repeated = upTo(numRecursions * blockLayers).map((l) =>
    isCycle ? l % blockLayers : Math.floor(l / numRecursions)
  );
  if (!sharing.startsWith("middle_")) return repeated;
  return [0, ...repeated.map((u) => u + 1), blockLayers + 1];
}
