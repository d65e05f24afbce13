/** How many recursion steps each token of a pass ran, from the packings that its router filled. */
import type { Tensor, TensorData } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { selectionsOf } from "./router_health.ts";
import type { Workspace } from "./workspace.ts";

/** What `stepRows` reads, in its order; none without a router. */
export function packingTensors(workspace: Workspace): Tensor[] {
  return selectionsOf(workspace).flatMap(({ packing: { rows, records } }) => [rows.count, records]);
}

/** The rows of the state that each recursion step ran, from the elements of `packingTensors`. */
export function stepRows(data: readonly TensorData[]): number[][] {
  return Array.from({ length: data.length / 2 }, (_, step) => {
    const [count, records] = [data[2 * step]![0]!, data[2 * step + 1]!];
    return Array.from({ length: count }, (_, row) => records[row * 4]!);
  });
}

/** Recursion steps that each row of the state ran; null for a vanilla model. */
export function rowDepths(
  { recursion, router }: ModelConfig,
  { rows, steps }: { rows: number; steps: readonly (readonly number[])[] },
): Uint32Array | null {
  if (!recursion) return null;
  const depths = new Uint32Array(rows).fill(router ? 0 : recursion.numRecursions);
  for (const step of steps) for (const row of step) depths[row]!++;
  return depths;
}
