/** How a text begins in a slot: its settings, the keys and values of its prompt but for the last token, which enters. */
import { Commands, submit } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { releasePages, reservePages } from "../../gpu/kernels/page_moves.ts";
import { samplingRecord } from "../../gpu/kernels/sample.ts";
import { PHASES } from "../../gpu/kernels/slot_fields.ts";
import type { Allocator } from "../../gpu/memory.ts";
import { fixedPacking, type Packing } from "../../gpu/packing.ts";
import { viewTensor, writeTensor } from "../../gpu/tensor.ts";
import { CachedPass } from "../cached_pass.ts";
import { PREFILL_ROWS } from "../decoder.ts";
import { SeenTokens } from "../seen_tokens.ts";
import type { DepthDecision } from "../token_choice.ts";
import type { BatchRequest } from "./batch_request.ts";
import { writeSlot } from "./batch_state.ts";
import type { Batch } from "./batch_tick.ts";

/** Puts texts into slots, and takes them out. */
export class PromptRunner {
  readonly #device: GpuDevice;
  readonly #batch: Batch;
  readonly #pass: CachedPass;
  readonly #reserve: Commands;
  readonly #release: Commands;
  /** Slots whose pages move. */
  readonly #moved: Packing;
  readonly #seen: SeenTokens;

  constructor(device: GpuDevice, allocator: Allocator, batch: Batch) {
    this.#device = device;
    this.#batch = batch;
    const { config, weights, store: { cache, pages }, state: { slots, seen } } = batch;
    const rows = Math.min(PREFILL_ROWS, cache.capacity);
    this.#pass = new CachedPass(device, { config, weights, cache, rows, head: "one", allocator });
    this.#moved = fixedPacking(allocator, { count: cache.slots });
    const move = { slots, pages, packing: this.#moved };
    reservePages(this.#reserve = new Commands(device, "pages for a prompt"), move);
    releasePages(this.#release = new Commands(device, "pages given back"), move);
    this.#seen = new SeenTokens(device, { seen, rows, allocator });
  }

  /** What sends prompt tokens to their depths; null without token choice. */
  get decision(): DepthDecision | null {
    const { decisions } = this.#pass.workspace;
    return decisions.kind === "token_choice" ? decisions.decision : null;
  }

  /** Begins a text in an empty slot. There must be pages for all tokens of its prompt at full depth. */
  start(slot: number, { prompt, count, sampling }: BatchRequest): void {
    const { state } = this.#batch;
    const [words, width] = [state.seen.shape[1]!, state.sampling.shape[1]!];
    const last = prompt.length - 1;
    writeTensor(
      this.#device,
      viewTensor(state.sampling, { start: slot * width, shape: [width] }),
      samplingRecord(sampling),
    );
    writeTensor(
      this.#device,
      viewTensor(state.seen, { start: slot * words, shape: [words] }),
      new Uint32Array(words),
    );
    writeSlot(this.#device, state, {
      slot,
      phase: PHASES.entering,
      step: 0,
      position: last,
      remaining: count,
      token: prompt[last]!,
    });
    for (let start = 0; start < prompt.length; start += this.#pass.rows) {
      const ids = prompt.slice(start, start + this.#pass.rows);
      // Without a penalty nobody looks at the set.
      if (sampling.repeatPenalty !== 1) this.#seen.add(slot, ids);
      const before = ids.slice(0, last - start);
      if (before.length > 0) this.#cache({ slot, start, ids: before });
    }
  }

  /** Keys and values of a prompt's part; what room its tokens did not need is free again. */
  #cache({ slot, start, ids }: { slot: number; start: number; ids: readonly number[] }): void {
    this.#move([[slot, ids.length, start, 0]], this.#reserve);
    this.#pass.run({ slot, start, ids });
    this.#move([[slot, 0, 0, 0]], this.#release);
  }

  /** Ends texts wherever they are. */
  stop(slots: readonly number[]): void {
    for (const slot of slots) writeSlot(this.#device, this.#batch.state, { slot, phase: PHASES.ended });
    this.#move(slots.map((slot) => [slot, 0, 0, 0]), this.#release);
  }

  #move(records: readonly (readonly number[])[], program: Commands): void {
    writeTensor(this.#device, this.#moved.records, Uint32Array.from(records.flat()));
    writeTensor(this.#device, this.#moved.rows.count, Uint32Array.of(records.length));
    submit(this.#device, [program]);
  }

  /** Frees the recorded programs; the buffers are the allocator's. */
  destroy(): void {
    for (const part of [this.#pass, this.#reserve, this.#release, this.#seen]) part.destroy();
  }
}
