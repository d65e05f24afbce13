/**
 * Reading tensors back.
 *
 * Awaiting `mapAsync` costs 11 ms in Deno: the call itself waits for the GPU, then the runtime sleeps 10 ms before it
 * settles the promise. A buffer that has been mapped once can be read synchronously instead, in 0.08 ms: the range is
 * there as soon as `mapAsync` returns. Whether that works is tried once per device; if not, reads await.
 */
import { type Commands, submit } from "./commands.ts";
import type { GpuDevice } from "./device.ts";
import { GpuError } from "./errors.ts";
import { createTensor, ELEMENT_BYTES, elementCount, type Tensor, type TensorData } from "./tensor.ts";

export type ReadbackMode = "synchronous" | "awaited";

/** Per device: buffers that have been mapped once, by size, and the way to read them. */
interface Staging {
  mode: ReadbackMode | null;
  /** The read under way: the next one waits, because they share buffers. */
  last: Promise<unknown>;
  readonly buffers: Map<number, GPUBuffer>;
}

const stagings = new WeakMap<GpuDevice, Staging>();

/** How a device's tensors are read: mapped at once or awaited; null before the first read has tried it. */
export function readbackMode(device: GpuDevice): ReadbackMode | null {
  return stagings.get(device)?.mode ?? null;
}

/** `readbackMode`, after a first read if there was none. */
export async function triedReadbackMode(device: GpuDevice): Promise<ReadbackMode> {
  if (readbackMode(device) === null) {
    const tensor = createTensor(device, { shape: [1], dtype: "u32", label: "readback trial" });
    await readTensor(device, tensor);
    device.destroyBuffer(tensor.buffer);
  }
  return readbackMode(device)!;
}

/**
 * The elements of a tensor after all work submitted so far.
 *
 * @throws GpuError when anything submitted before has failed, or the device is lost.
 */
export async function readTensor(device: GpuDevice, tensor: Tensor): Promise<TensorData> {
  const [data] = await readTensors(device, [tensor]);
  return data!;
}

/**
 * The elements of several tensors, for the price of one read.
 *
 * @param after Programs that run first, in the same submit: a submit of their own would take 0.1 ms and more.
 */
export function readTensors(
  device: GpuDevice,
  tensors: readonly Tensor[],
  { after = [] }: { after?: readonly Commands[] } = {},
): Promise<TensorData[]> {
  const staging = stagings.get(device) ?? { mode: null, last: Promise.resolve(), buffers: new Map() };
  stagings.set(device, staging);
  const read = staging.last.then(() => readStaged(device, { tensors, staging, after })).catch(
    async (cause) => {
      throw await device.explain(cause);
    },
  );
  staging.last = read.catch(() => {});
  return read;
}

async function readStaged(
  device: GpuDevice,
  { tensors, staging, after }: {
    tensors: readonly Tensor[];
    staging: Staging;
    after: readonly Commands[];
  },
): Promise<TensorData[]> {
  await device.settle();
  const sizes = tensors.map(({ shape }) => elementCount(shape) * ELEMENT_BYTES);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const buffer = await stagingBuffer(device, { staging, bytes: total });
  function encode(encoder: GPUCommandEncoder): void {
    let offset = 0;
    tensors.forEach((tensor, i) => {
      if (sizes[i]! > 0) encoder.copyBufferToBuffer(tensor.buffer, tensor.offset, buffer, offset, sizes[i]!);
      offset += sizes[i]!;
    });
  }
  submit(device, after, { label: "Cannot read tensors back", encode });
  // Errors of the copy itself must be seen before its bytes are believed.
  await device.settle();
  const bytes = await mappedBytes(buffer, { staging, size: total });
  await device.settle();
  let offset = 0;
  return tensors.map(({ dtype }, i) => {
    const part = bytes.slice(offset, offset + sizes[i]!);
    offset += sizes[i]!;
    return dtype === "f32"
      ? new Float32Array(part)
      : dtype === "u32"
      ? new Uint32Array(part)
      : new Int32Array(part);
  });
}

/** A buffer of at least `bytes`, mapped once before: reading an unprimed one synchronously ends the process. */
async function stagingBuffer(
  device: GpuDevice,
  { staging, bytes }: { staging: Staging; bytes: number },
): Promise<GPUBuffer> {
  const size = Math.max(4096, bytes, Math.min(2 ** Math.ceil(Math.log2(bytes)), device.limits.maxBufferSize));
  const known = staging.buffers.get(size);
  if (known) return known;
  const usage = GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST;
  const buffer = device.createBuffer({ size, usage, label: "staging" });
  await device.settle();
  await buffer.mapAsync(GPUMapMode.READ);
  buffer.unmap();
  staging.buffers.set(size, buffer);
  return buffer;
}

async function mappedBytes(
  buffer: GPUBuffer,
  { staging, size }: { staging: Staging; size: number },
): Promise<ArrayBuffer> {
  if (staging.mode !== "awaited") {
    const mapped = buffer.mapAsync(GPUMapMode.READ).catch(() => {});
    try {
      const bytes = buffer.getMappedRange(0, paddedSize(size)).slice(0);
      buffer.unmap();
      staging.mode = "synchronous";
      return bytes;
    } catch {
      // This adapter settles later: from here on, wait for it.
      staging.mode = "awaited";
      await mapped;
      return takeBytes(buffer, size);
    }
  }
  await buffer.mapAsync(GPUMapMode.READ);
  return takeBytes(buffer, size);
}

function takeBytes(buffer: GPUBuffer, size: number): ArrayBuffer {
  try {
    return buffer.getMappedRange(0, paddedSize(size)).slice(0);
  } catch (cause) {
    throw new GpuError("internal", `Cannot map a buffer to read it: ${(cause as Error).message}`);
  } finally {
    buffer.unmap();
  }
}

/** Mapped ranges are multiples of four bytes and not empty. */
function paddedSize(size: number): number {
  return Math.max(4, size);
}
