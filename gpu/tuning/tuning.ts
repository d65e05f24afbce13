/**
 * Which variants of its kernels a device uses: names, so that they can be kept in a file.
 *
 * A device starts with the rules that hold without a measurement. What is faster on hardware differs from chip to chip,
 * so measure.ts can measure it; whoever opens a device decides whether it uses that, before it records anything.
 */
import type { GpuDevice } from "../device.ts";
import type { AttentionVariantName } from "../kernels/attention_variants.ts";
import type { CachedVariantName } from "../kernels/attention_cached.ts";
import type { MatmulVariantName } from "../kernels/matmul.ts";
import type { PanelVariantName, VectorVariantName } from "../kernels/matmul_vector.ts";
import { hasSubgroupsOfEight } from "../kernels/row_lanes.ts";

/** Choices of a device. Results of two tunings differ by rounding. */
export interface Tuning {
  /** Products of many rows. */
  readonly matmul: MatmulVariantName;
  /** Products of up to 128 rows. */
  readonly matmulFewRows: MatmulVariantName;
  /** Gradients of weights. */
  readonly matmulGradient: MatmulVariantName;
  /** Products of very few rows, with f32 and with packed weights. */
  readonly matmulVector: VectorVariantName;
  readonly matmulPanel: PanelVariantName;
  /** Rows up to which those are used instead of `matmulFewRows`. */
  readonly vectorRows: VectorRows;
  /** Attention with its gradients, and attention of single rows to a cache. */
  readonly attention: AttentionVariantName;
  readonly attentionCached: CachedVariantName;
}

/** Row counts that `vectorRows` may have, ascending. */
export const VECTOR_ROWS = [4, 8, 16, 32] as const;
export type VectorRows = typeof VECTOR_ROWS[number];

/** What holds for an adapter without measuring; for lavapipe with its eight lanes it has been measured. */
export function defaultTuning({ info, features }: Pick<GpuDevice, "info" | "features">): Tuning {
  const hasEight = hasSubgroupsOfEight({ info, features });
  const product = hasEight ? "subgroup" : "tile_64x64";
  return {
    matmul: product,
    matmulFewRows: product,
    matmulGradient: product,
    matmulVector: hasEight ? "subgroup" : "lanes_32",
    matmulPanel: hasEight ? "subgroup" : "slices_4",
    vectorRows: 16,
    attention: hasEight ? "subgroup" : info.isSoftware ? "lanes_8" : "lanes_32",
    attentionCached: hasEight ? "subgroup" : info.isSoftware ? "lanes_8" : "lanes_64",
  };
}
