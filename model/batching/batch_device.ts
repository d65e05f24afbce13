/** A batch's buffers and programs: ticks that the GPU runs by itself, and what the host learns when it looks. */
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import { LOG_RECORD_LENGTH } from "../../gpu/kernels/slot_finish.ts";
import { PHASES, SLOT_ALIGNMENT, type SlotPhase, TALLIES } from "../../gpu/kernels/slot_fields.ts";
import { BufferScope } from "../../gpu/memory.ts";
import { readTensors } from "../../gpu/readback.ts";
import { type Tensor, viewTensor, writeTensor } from "../../gpu/tensor.ts";
import type { ModelConfig } from "../config.ts";
import type { ModelWeights } from "../model_weights.ts";
import { batchParts } from "./batch_parts.ts";
import { PromptRunner } from "./batch_prompt.ts";
import { allocateBatchState } from "./batch_state.ts";
import { writeForcedDepth } from "../token_choice.ts";
import {
  allocateTick,
  type Batch,
  recordEnter,
  recordLeave,
  recordRecur,
  type TickBuffers,
} from "./batch_tick.ts";
import { allocatePageStore } from "./page_store.ts";

/** What a batch is made for. */
export interface BatchShape {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  /** Rows of the block: tokens that run it at a time. */
  readonly rows: number;
  /** Texts at a time. */
  readonly slots: number;
  /** Most tokens of a text. */
  readonly capacity: number;
  readonly kvDtype: KvDtype;
  /** For keys and values. */
  readonly kvBytes: number;
  /** Tokens that end a text. */
  readonly endTokens: readonly number[];
  /** Ticks of one `run`. */
  readonly ticks: number;
  /** Whether tokens of different depths share the block, as they do unless told; otherwise they wait for the deepest. */
  readonly isDepthWise?: boolean;
}

/** A token that a slot drew; NO_TOKEN where its logits were damaged. */
export interface DrawnToken {
  readonly slot: number;
  readonly id: number;
  readonly logProbability: number;
  /** Times that the token before it ran the block. */
  readonly steps: number;
}

/** What the host learns of some ticks. */
export interface TickReport {
  readonly tokens: readonly DrawnToken[];
  /** Pages that nobody has, by bank. */
  readonly freePages: readonly number[];
  /** By phase: rows of the last tick, rows and choices with any rows of all ticks, slots without a page. */
  readonly rowsNow: Readonly<Record<SlotPhase, number>>;
  readonly rows: Readonly<Record<SlotPhase, number>>;
  readonly runs: Readonly<Record<SlotPhase, number>>;
  readonly stalled: Readonly<Record<SlotPhase, number>>;
}

export class BatchDevice {
  readonly batch: Batch;
  readonly prompts: PromptRunner;
  readonly #device: GpuDevice;
  readonly #scope: BufferScope;
  /** One tick: its parts, recur, leave and enter. */
  readonly tick: readonly [Commands, Commands, Commands];
  readonly #buffers: TickBuffers;
  readonly #ticks: number;

  /** @throws ConfigError, MemoryError: see `allocatePageStore`. */
  constructor(
    device: GpuDevice,
    { config, weights, rows, capacity, ticks, isDepthWise = true, ...shape }: BatchShape,
  ) {
    this.#device = device;
    this.#ticks = ticks;
    const allocator = this.#scope = new BufferScope(device);
    try {
      const parts = batchParts(config);
      const slots = Math.ceil(shape.slots / SLOT_ALIGNMENT) * SLOT_ALIGNMENT;
      const { kvDtype, kvBytes: bytes, endTokens } = shape;
      const store = allocatePageStore(device, allocator, { config, parts, slots, capacity, kvDtype, bytes });
      const state = allocateBatchState(allocator, { config, slots, logEntries: ticks * rows, endTokens });
      const batch = this.batch = { config, weights, parts, state, store };
      const buffers = this.#buffers = allocateTick(device, allocator, {
        config,
        weights,
        parts,
        rows,
        capacity,
      });
      this.tick = [
        new Commands(device, "recursion step"),
        new Commands(device, "tokens leave"),
        new Commands(device, "tokens enter"),
      ];
      const [recur, leave, enter] = this.tick;
      recordRecur(recur, batch, buffers);
      // A whole batch leaves together where that is to be had without a hole in the block.
      recordLeave(
        leave,
        batch,
        buffers,
        isDepthWise ? { due: rows, full: rows } : { due: slots + 1, full: 1 },
      );
      recordEnter(enter, batch, buffers);
      this.prompts = new PromptRunner(device, allocator, batch);
    } catch (error) {
      allocator.destroy();
      throw error;
    }
  }

  /** See `writeForcedDepth`. */
  forceDepth(depth: number): void {
    const { router } = this.#buffers;
    for (const decision of [router.kind === "token_choice" ? router.decision : null, this.prompts.decision]) {
      writeForcedDepth(this.#device, decision, { config: this.batch.config, depth });
    }
  }

  /** Runs some ticks. */
  async run(): Promise<TickReport> {
    const { tallies, log } = this.batch.state;
    for (const start of [TALLIES.events, TALLIES.rows, TALLIES.runs]) {
      writeTensor(this.#device, viewTensor(tallies, { start, shape: [4] }), new Uint32Array(4));
    }
    const programs = Array.from({ length: this.#ticks }, () => this.tick).flat();
    const wanted = [tallies, log, ...this.#freeCounts];
    const [tallied, records, ...free] = await readTensors(this.#device, wanted, { after: programs });
    const floats = new Float32Array(records!.buffer);
    const tokens = Array.from({ length: tallied![TALLIES.events]! }, (_, i): DrawnToken => {
      const record = i * LOG_RECORD_LENGTH;
      return {
        slot: records![record]!,
        id: records![record + 1]!,
        logProbability: floats[record + 2]!,
        steps: records![record + 3]!,
      };
    });
    const byPhase = (first: number): Record<SlotPhase, number> => ({
      entering: tallied![first + PHASES.entering]!,
      recurring: tallied![first + PHASES.recurring]!,
      leaving: tallied![first + PHASES.leaving]!,
    });
    return {
      tokens,
      freePages: free.map(([count]) => count!),
      rowsNow: byPhase(TALLIES.rowsNow),
      rows: byPhase(TALLIES.rows),
      runs: byPhase(TALLIES.runs),
      stalled: byPhase(TALLIES.stalled),
    };
  }

  /** Pages that nobody has now, by bank. */
  async freePages(): Promise<number[]> {
    return (await readTensors(this.#device, this.#freeCounts)).map(([count]) => count!);
  }

  /** (1) u32 for each bank. */
  get #freeCounts(): Tensor[] {
    const { free } = this.batch.store.pages;
    const [banks, stride] = free.shape as [number, number];
    return Array.from({ length: banks }, (_, bank) => viewTensor(free, { start: bank * stride, shape: [1] }));
  }

  /** Frees the programs and all buffers. */
  destroy(): void {
    this.prompts.destroy();
    for (const commands of this.tick) commands.destroy();
    this.#scope.destroy();
  }
}
