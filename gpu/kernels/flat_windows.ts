/** Cutting a long tensor into parts that the adapter can bind. */
import type { GpuDevice } from "../device.ts";
import { ELEMENT_BYTES, elementCount, type Tensor, viewTensor } from "../tensor.ts";

/** Windows are multiples of this many elements: their partial sums start at multiples of 256 bytes. */
const WINDOW_STEP = 1024 * 1024;

/** A part of a flat tensor. */
export interface FlatWindow {
  readonly start: number;
  readonly length: number;
}

/**
 * Consecutive windows of a flat tensor, each no larger than the adapter binds at once (128 MiB on software adapters).
 *
 * @throws TypeError when the number of elements is not a multiple of 4, the width of the kernels' vectors.
 */
export function flatWindows(device: GpuDevice, tensor: Tensor): FlatWindow[] {
  const count = elementCount(tensor.shape);
  if (count % 4 !== 0) {
    throw new TypeError(
      `Cannot cut ${tensor.label} into windows: ${count} elements, expected a multiple of 4`,
    );
  }
  const largest = device.limits.maxStorageBufferBindingSize / ELEMENT_BYTES;
  const step = Math.floor(largest / WINDOW_STEP) * WINDOW_STEP;
  const windows = Math.ceil(count / step);
  return Array.from(
    { length: windows },
    (_, i) => ({ start: i * step, length: Math.min(step, count - i * step) }),
  );
}

/** The window of a tensor. */
export function windowOf(tensor: Tensor, { start, length }: FlatWindow): Tensor {
  return viewTensor(tensor, { start, shape: [length] });
}
