/** Tests that run on the adapter. They never skip: without an adapter they fail, so that a green run proves something. */
import { type GpuDevice, openDevice } from "../../gpu/device.ts";
import { Commands, submit } from "../../gpu/commands.ts";
import { readTensors } from "../../gpu/readback.ts";
import { createTensor, type Tensor, type TensorData, tensorFrom } from "../../gpu/tensor.ts";

let shared: Promise<GpuDevice> | null = null;

/** Registers a test that gets the file's device. */
export function gpuTest(name: string, body: (device: GpuDevice) => Promise<void>): void {
  Deno.test(name, async () => {
    shared ??= openDevice();
    const device = await shared;
    await body(device);
    await device.settle();
  });
}

/** A float32 tensor of float64 values. */
export function upload(
  device: GpuDevice,
  data: ArrayLike<number>,
  shape: readonly number[] = [data.length],
): Tensor {
  return tensorFrom(device, { data: Float32Array.from(data), shape, label: "input" });
}

export function uploadIndices(
  device: GpuDevice,
  data: ArrayLike<number>,
  shape: readonly number[] = [data.length],
): Tensor {
  return tensorFrom(device, { data: Uint32Array.from(data), shape, label: "indices" });
}

/** A tensor full of `fill`, NaN unless told: what a kernel must overwrite shows. */
export function blank(device: GpuDevice, shape: readonly number[], fill = NaN): Tensor {
  const size = shape.reduce((product, n) => product * n, 1);
  return tensorFrom(device, { data: new Float32Array(size).fill(fill), shape, label: "output" });
}

export function blankIndices(device: GpuDevice, shape: readonly number[]): Tensor {
  return createTensor(device, { shape, dtype: "u32", label: "output" });
}

/** Records, submits and reads the outputs. */
export async function run(
  device: GpuDevice,
  record: (commands: Commands) => void,
  outputs: readonly Tensor[],
): Promise<TensorData[]> {
  const commands = new Commands(device, "test");
  record(commands);
  submit(device, [commands]);
  const data = await readTensors(device, outputs);
  commands.destroy();
  return data;
}
