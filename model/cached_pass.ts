/** A recorded forward pass over some new tokens of one text, whose earlier tokens are in a cache. */
import { Commands, submit } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import type { Allocator } from "../gpu/memory.ts";
import { viewTensor, writeTensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { headLogits } from "./head.ts";
import type { KvCache } from "./kv_cache.ts";
import type { ModelWeights } from "./model_weights.ts";
import { transformerForward } from "./transformer.ts";
import { allocateWorkspace, type Workspace } from "./workspace.ts";

/** New tokens of a text. */
export interface NewTokens {
  /** The text's place in the cache. */
  readonly slot: number;
  /** Tokens of the text that the cache holds already. */
  readonly start: number;
  readonly ids: readonly number[];
}

/** A program for up to `rows` new tokens at a time. */
export class CachedPass {
  readonly workspace: Workspace;
  readonly rows: number;
  readonly #device: GpuDevice;
  readonly commands: Commands;

  /**
   * @param head Tokens that get logits: all of them, or the last one.
   * @throws MemoryError when its buffers do not fit.
   */
  constructor(
    device: GpuDevice,
    { config, weights, cache, rows, head, allocator = device }: {
      config: ModelConfig;
      weights: ModelWeights;
      cache: KvCache;
      rows: number;
      head: "all" | "one";
      allocator?: Allocator;
    },
  ) {
    this.rows = rows;
    this.#device = device;
    this.workspace = allocateWorkspace(allocator, {
      config,
      shape: { lengths: [rows], routing: "causal", backward: false, head, cache },
    });
    this.commands = new Commands(device, "cached forward");
    const pass = { config, weights, workspace: this.workspace };
    headLogits(this.commands, pass, { state: transformerForward(this.commands, pass) });
  }

  /** Runs at most `rows` new tokens. */
  run({ slot, start, ids }: NewTokens): void {
    const { full, headPacking, cache, ids: idsTensor } = this.workspace;
    const count = ids.length;
    const records = Uint32Array.from(
      { length: count * 4 },
      (_, i) => [i >> 2, start + (i >> 2), 0, count][i % 4]!,
    );
    const device = this.#device;
    writeTensor(device, idsTensor, Uint32Array.from(ids));
    writeTensor(device, full.records, records);
    writeTensor(device, full.rows.count, Uint32Array.of(count));
    writeTensor(device, cache!.slots, new Uint32Array(count).fill(slot));
    if (headPacking !== full) {
      writeTensor(device, headPacking.records, Uint32Array.of(count - 1, start + count - 1, 0, 1));
    }
    submit(device, [this.commands]);
  }

  /** Frees the recorded program; the buffers are the allocator's. */
  destroy(): void {
    this.commands.destroy();
  }
}

/** Empties a text's place in a cache. */
export function clearSlot(device: Allocator, { lengths }: KvCache, slot: number): void {
  for (const counts of lengths) {
    if (counts) writeTensor(device, viewTensor(counts, { start: slot, shape: [1] }), Uint32Array.of(0));
  }
}
