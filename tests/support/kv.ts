/** Keys and values for tests of kernels that take them as f32 or as f16. */
import type { GpuDevice } from "../../gpu/device.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import type { Tensor, TensorData } from "../../gpu/tensor.ts";
import { upload, uploadIndices } from "./device.ts";

export const kvDtypes: readonly KvDtype[] = ["f32", "f16"];

/** The nearest number that a tensor of that kind holds exactly. */
export function roundKv(value: number, dtype: KvDtype): number {
  return dtype === "f16" ? Math.f16round(value) : Math.fround(value);
}

/** A tensor (..., columns) of keys and values. */
export function uploadKv(
  device: GpuDevice,
  data: Float64Array,
  { shape, dtype }: { shape: readonly number[]; dtype: KvDtype },
): Tensor {
  if (dtype === "f32") return upload(device, data, shape);
  const halves = Float16Array.from(data);
  return uploadIndices(device, new Uint32Array(halves.buffer), [...shape.slice(0, -1), shape.at(-1)! / 2]);
}

/** The numbers of a tensor of keys and values that was read back. */
export function kvNumbers({ buffer }: TensorData, dtype: KvDtype): Float64Array {
  return Float64Array.from<number>(dtype === "f16" ? new Float16Array(buffer) : new Float32Array(buffer));
}
