/** Packed matrices made of random numbers, with the numbers that they hold. */
import type { GpuDevice } from "../../gpu/device.ts";
import {
  createPackedMatrix,
  type PackedFormat,
  type PackedMatrix,
  PackedWriter,
} from "../../gpu/packed_matrix.ts";
import { decodeNumbers, encodeNumbers } from "../../model/files/number_formats.ts";

/** A matrix (N, K) on the device, written in two parts, and its numbers. */
export function uploadPacked(
  device: GpuDevice,
  values: ArrayLike<number>,
  { format, shape }: { format: PackedFormat; shape: readonly [number, number] },
): { matrix: PackedMatrix; numbers: Float64Array } {
  const bytes = encodeNumbers(format, Float32Array.from(values));
  const matrix = createPackedMatrix(device, { format, shape, label: "packed weight" });
  const writer = new PackedWriter(device, matrix);
  const split = (shape[0] >> 1) * (bytes.length / shape[0]);
  writer.write(bytes.slice(0, split));
  writer.write(bytes.slice(split));
  writer.end();
  return { matrix, numbers: Float64Array.from(decodeNumbers(format, bytes)) };
}
