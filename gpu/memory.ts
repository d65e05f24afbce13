/** Exact account of the bytes that a device's buffers hold. */
import { MemoryError } from "./errors.ts";

/** Bytes as people read them: `12.3 MiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}

/** Counts the bytes of live buffers and their peak, and refuses what goes over a budget. */
export class MemoryLedger {
  #live = 0;
  #peak = 0;
  #budget = Infinity;

  /** Bytes of the buffers that exist now. */
  get live(): number {
    return this.#live;
  }

  /** Largest value that `live` has had. */
  get peak(): number {
    return this.#peak;
  }

  /** Bytes that are left of the budget. */
  get available(): number {
    return this.#budget - this.#live;
  }

  /** Most bytes that `add` lets through; infinite until set. */
  set budget(bytes: number) {
    this.#budget = bytes;
  }

  /** @throws MemoryError when the bytes would go over the budget; nothing is counted then. */
  add(bytes: number, label: string): void {
    if (this.#live + bytes > this.#budget) {
      throw new MemoryError(
        `Cannot allocate ${label}: ${formatBytes(bytes)} on top of ${
          formatBytes(this.#live)
        } in use exceeds ` +
          `the ${formatBytes(this.#budget)} available; lower --batch-size or --sequence-length`,
      );
    }
    this.#live += bytes;
    this.#peak = Math.max(this.#peak, this.#live);
  }

  remove(bytes: number): void {
    this.#live -= bytes;
  }
}

/** What makes buffers: a device, or a plan that only counts them. */
export interface Allocator {
  readonly memory: MemoryLedger;
  /** Most bytes of a tensor that a dispatch can bind. */
  readonly bindingLimit: number;
  /** A zeroed buffer, counted in `memory`. */
  createBuffer(options: { size: number; usage: GPUBufferUsageFlags; label: string }): GPUBuffer;
  destroyBuffer(buffer: GPUBuffer): void;
  writeBuffer(buffer: GPUBuffer, offset: number, data: BufferSource): void;
}

/**
 * An allocator that takes no memory: whatever is built with it, `memory` then tells what a device would need, one that
 * binds tensors of any size. Nothing built with it can be run.
 */
export function planAllocator(): Allocator {
  const memory = new MemoryLedger();
  return {
    memory,
    bindingLimit: Infinity,
    createBuffer({ size, label }): GPUBuffer {
      memory.add(size, label);
      return { size, label } as GPUBuffer;
    },
    destroyBuffer: ({ size }) => memory.remove(size),
    writeBuffer: () => {},
  };
}

/** An allocator whose buffers are freed together. */
export class BufferScope implements Allocator {
  readonly #parent: Allocator;
  readonly #buffers: GPUBuffer[] = [];

  constructor(parent: Allocator) {
    this.#parent = parent;
  }

  get memory(): MemoryLedger {
    return this.#parent.memory;
  }

  /** The parent's. */
  get bindingLimit(): number {
    return this.#parent.bindingLimit;
  }

  createBuffer(options: { size: number; usage: GPUBufferUsageFlags; label: string }): GPUBuffer {
    const buffer = this.#parent.createBuffer(options);
    this.#buffers.push(buffer);
    return buffer;
  }

  destroyBuffer(buffer: GPUBuffer): void {
    const index = this.#buffers.indexOf(buffer);
    if (index >= 0) this.#buffers.splice(index, 1);
    this.#parent.destroyBuffer(buffer);
  }

  writeBuffer(buffer: GPUBuffer, offset: number, data: BufferSource): void {
    this.#parent.writeBuffer(buffer, offset, data);
  }

  /** Frees every buffer made through this scope. Work already submitted still finishes. */
  destroy(): void {
    for (const buffer of this.#buffers) this.#parent.destroyBuffer(buffer);
    this.#buffers.length = 0;
  }
}
