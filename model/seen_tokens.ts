/** The tokens of prompts, for the sets that repeat penalties look at. */
import { Commands, submit } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { markSeen } from "../gpu/kernels/sample.ts";
import type { Allocator } from "../gpu/memory.ts";
import { type Rows, staticRows } from "../gpu/rows.ts";
import { createTensor, type Tensor, writeTensor } from "../gpu/tensor.ts";

/** Adds tokens to the sets (S, words) u32 of S slots. */
export class SeenTokens {
  readonly #device: GpuDevice;
  readonly #ids: Tensor;
  readonly #slots: Tensor;
  readonly #rows: Rows;
  readonly #commands: Commands;

  /** @param rows Most tokens that `add` takes at a time. */
  constructor(
    device: GpuDevice,
    { seen, rows, allocator }: { seen: Tensor; rows: number; allocator: Allocator },
  ) {
    this.#device = device;
    const u32 = (label: string): Tensor => createTensor(allocator, { shape: [rows], dtype: "u32", label });
    this.#ids = u32("seen ids");
    this.#slots = u32("seen slots");
    this.#rows = staticRows(allocator, rows);
    this.#commands = new Commands(device, "seen tokens");
    this.#commands.mark("sampling");
    markSeen(this.#commands, { ids: this.#ids, slots: this.#slots, seen }, { rows: this.#rows });
  }

  /** Adds prompt tokens to a slot's set. */
  add(slot: number, ids: readonly number[]): void {
    writeTensor(this.#device, this.#ids, Uint32Array.from(ids));
    writeTensor(this.#device, this.#slots, new Uint32Array(ids.length).fill(slot));
    writeTensor(this.#device, this.#rows.count, Uint32Array.of(ids.length));
    submit(this.#device, [this.#commands]);
  }

  /** Frees the recorded program; the buffers are the allocator's. */
  destroy(): void {
    this.#commands.destroy();
  }
}
