/** Tensors: a region of a buffer with a shape and an element type. */
import type { Allocator } from "./memory.ts";

export type Dtype = "f32" | "u32" | "i32";
export type TensorData = Float32Array<ArrayBuffer> | Uint32Array<ArrayBuffer> | Int32Array<ArrayBuffer>;

/** Bytes of one element, for every dtype so far. */
export const ELEMENT_BYTES = 4;

/** Storage bindings start at multiples of this, on every adapter (the specification's default). */
export const BINDING_ALIGNMENT = 256;

/** A row-major region of a buffer. A plain record: it owns nothing, whoever made the buffer destroys it. */
export interface Tensor {
  readonly buffer: GPUBuffer;
  /** Bytes from the buffer's start. */
  readonly offset: number;
  readonly shape: readonly number[];
  readonly dtype: Dtype;
  readonly label: string;
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Bytes that a tensor of this shape takes when it has a buffer of its own. */
function tensorBytes(shape: readonly number[]): number {
  // WebGPU has no empty buffers, and kernels bind vec4 arrays.
  return Math.max(16, Math.ceil((elementCount(shape) * ELEMENT_BYTES) / 16) * 16);
}

/** A zeroed tensor in a buffer of its own. */
export function createTensor(
  device: Allocator,
  { shape, dtype = "f32", label }: { shape: readonly number[]; dtype?: Dtype; label: string },
): Tensor {
  const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST |
    GPUBufferUsage.INDIRECT;
  const buffer = device.createBuffer({ size: tensorBytes(shape), usage, label });
  return { buffer, offset: 0, shape, dtype, label };
}

/** A new tensor that holds `data`. */
export function tensorFrom(
  device: Allocator,
  { data, shape = [data.length], label }: { data: TensorData; shape?: readonly number[]; label: string },
): Tensor {
  const dtype = data instanceof Float32Array ? "f32" : data instanceof Uint32Array ? "u32" : "i32";
  const tensor = createTensor(device, { shape, dtype, label });
  writeTensor(device, tensor, data);
  return tensor;
}

/**
 * Replaces the first `data.length` elements.
 *
 * @throws RangeError when data is longer than the tensor, TypeError when its type is not the tensor's.
 */
export function writeTensor(device: Allocator, tensor: Tensor, data: TensorData): void {
  const size = elementCount(tensor.shape);
  if (data.length > size) {
    throw new RangeError(`Cannot write ${data.length} elements to ${tensor.label}, which has ${size}`);
  }
  const dtype = data instanceof Float32Array ? "f32" : data instanceof Uint32Array ? "u32" : "i32";
  if (dtype !== tensor.dtype) {
    throw new TypeError(`Cannot write ${dtype} data to ${tensor.label}, which is ${tensor.dtype}`);
  }
  device.writeBuffer(tensor.buffer, tensor.offset, data);
}

/**
 * Part of a tensor under another shape, `start` elements in; it shares the tensor's memory.
 *
 * @throws RangeError when it reaches past the tensor's end.
 */
export function viewTensor(
  tensor: Tensor,
  { start = 0, shape, label = tensor.label }: { start?: number; shape: readonly number[]; label?: string },
): Tensor {
  const end = start + elementCount(shape);
  if (end > elementCount(tensor.shape)) {
    throw new RangeError(
      `Cannot view ${tensor.label}: element ${end} is past its ${elementCount(tensor.shape)}`,
    );
  }
  return { ...tensor, offset: tensor.offset + start * ELEMENT_BYTES, shape, label };
}

export function destroyTensor(device: Allocator, tensor: Tensor): void {
  device.destroyBuffer(tensor.buffer);
}

/**
 * Checks the shapes that a kernel's caller hands over: `{ x: [x, [rows, dim]] }`. A tensor may have spare elements,
 * because buffers are sized for the most rows, but not fewer.
 *
 * @throws TypeError naming the operation, the tensor, its shape and the wanted one.
 */
export function checkShape(
  operation: string,
  wanted: Readonly<Record<string, readonly [tensor: Tensor, shape: readonly number[]]>>,
): void {
  for (const [name, [tensor, shape]] of Object.entries(wanted)) {
    const fits = elementCount(tensor.shape) >= elementCount(shape) &&
      (shape.length < 2 || tensor.shape.length < 2 || tensor.shape.at(-1) === shape.at(-1));
    if (!fits) {
      throw new TypeError(
        `Cannot record ${operation}: ${name} has shape (${tensor.shape}), expected (${shape})`,
      );
    }
  }
}
