/**
 * Cached decoding: a text's prompt runs once, in chunks; then every token costs one row. Routing, cache, skipped
 * recursions, sampling and the next token's id all stay on the GPU; the host reads what was chosen, a step or some steps
 * at a time.
 */
import { Commands } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import type { KvDtype } from "../gpu/kernels/attention_heads.ts";
import { nextRows } from "../gpu/kernels/decode_step.ts";
import type { SlotSampling } from "../gpu/kernels/sample.ts";
import { BufferScope } from "../gpu/memory.ts";
import { readTensor } from "../gpu/readback.ts";
import { viewTensor, writeTensor } from "../gpu/tensor.ts";
import { CachedPass, clearSlot } from "./cached_pass.ts";
import { ConfigError, type ModelConfig } from "./config.ts";
import { headLogits } from "./head.ts";
import { allocateCache, type KvCache } from "./kv_cache.ts";
import type { ModelWeights } from "./model_weights.ts";
import { type DecodedToken, MAX_STEPS_PER_READ, SlotSampler } from "./slot_sampler.ts";
import { writeForcedDepth } from "./token_choice.ts";
import { transformerForward } from "./transformer.ts";
import { allocateWorkspace, type Workspace } from "./workspace.ts";

/** Tokens of a prompt that run at a time. */
export const PREFILL_ROWS = 256;

/** Some texts being continued, each in a slot of its own. */
export class Decoder {
  readonly cache: KvCache;
  readonly #device: GpuDevice;
  readonly #config: ModelConfig;
  readonly #scope: BufferScope;
  readonly #sampler: SlotSampler;
  readonly #prompt: CachedPass;
  readonly #promptEnd: Commands;
  readonly #step: Commands;
  readonly #stepWorkspace: Workspace;
  /** Tokens of each slot's text that have run. */
  readonly #lengths: number[];
  /** The slots of the last step. */
  #active = "";

  /**
   * @param slots Texts at a time.
   * @param capacity Most tokens of a text.
   * @param kvDtype How keys and values are stored; f32 unless told. With f16 a text that needs any beyond 65504 ends in
   * a RangeError.
   * @throws ConfigError for more tokens than the model has positions, MemoryError when it does not fit.
   */
  constructor(
    device: GpuDevice,
    { config, weights, slots, capacity, kvDtype = "f32" }: {
      config: ModelConfig;
      weights: ModelWeights;
      slots: number;
      capacity: number;
      kvDtype?: KvDtype;
    },
  ) {
    this.#device = device;
    this.#config = config;
    this.#scope = new BufferScope(device);
    this.#lengths = new Array<number>(slots).fill(0);
    const allocator = this.#scope;
    const rows = Math.min(PREFILL_ROWS, capacity);
    this.cache = allocateCache(allocator, { config, slots, capacity, kvDtype });
    this.#sampler = new SlotSampler(device, { config, kvDtype, slots, promptRows: rows, allocator });
    const model = { config, weights, cache: this.cache };
    this.#prompt = new CachedPass(device, { ...model, rows, head: "one", allocator });
    this.#promptEnd = new Commands(device, "first token");
    this.#sampler.record(this.#promptEnd, this.#prompt.workspace, { lastRow: true });

    this.#stepWorkspace = allocateWorkspace(allocator, {
      config,
      shape: {
        lengths: new Array<number>(slots).fill(1),
        routing: "causal",
        backward: false,
        head: "all",
        cache: this.cache,
      },
    });
    this.#step = new Commands(device, "decoding step");
    const { ids, full: packing, cache } = this.#stepWorkspace;
    this.#step.mark("embedding");
    nextRows(this.#step, { slots: cache!.slots, ...this.#sampler.state, ids, packing });
    const pass = { config, weights, workspace: this.#stepWorkspace };
    headLogits(this.#step, pass, { state: transformerForward(this.#step, pass) });
    this.#sampler.record(this.#step, this.#stepWorkspace, { lastRow: false });
  }

  /**
   * Puts a new text into a slot, runs its prompt and draws its first token. The token itself has not run yet.
   *
   * @throws ConfigError for an empty prompt or one that is longer than the decoder's capacity; RangeError for damaged
   * weights.
   */
  async start(
    slot: number,
    { prompt, sampling }: { prompt: readonly number[]; sampling: SlotSampling },
  ): Promise<DecodedToken> {
    const { capacity } = this.cache;
    if (prompt.length === 0) {
      throw new ConfigError("Cannot generate from an empty prompt; give at least one token");
    }
    if (prompt.length > capacity) {
      throw new ConfigError(
        `Cannot run a prompt of ${prompt.length} tokens: there is room for ${capacity}; give a shorter prompt`,
      );
    }
    clearSlot(this.#device, this.cache, slot);
    this.#sampler.start(slot, { promptLength: prompt.length, sampling });
    const { rows } = this.#prompt;
    for (let start = 0; start < prompt.length; start += rows) {
      const ids = prompt.slice(start, start + rows);
      this.#sampler.see(slot, ids);
      this.#prompt.run({ slot, start, ids });
    }
    this.#lengths[slot] = prompt.length;
    const [[token]] = await this.#sampler.run([slot], [this.#promptEnd]) as [[DecodedToken]];
    return token;
  }

  /**
   * Runs the last drawn token of each given slot and draws the next, `count` times over. Returns what was drawn,
   * [step][slot].
   *
   * @throws ConfigError when a text would grow past the capacity; RangeError for damaged weights, or too many steps at
   * once.
   */
  async step(slots: readonly number[], { count = 1 }: { count?: number } = {}): Promise<DecodedToken[][]> {
    const { capacity } = this.cache;
    if (count > MAX_STEPS_PER_READ) {
      throw new RangeError(`Cannot run ${count} steps at once, at most ${MAX_STEPS_PER_READ}`);
    }
    const longest = Math.max(...slots.map((slot) => this.#lengths[slot]!)) + count;
    if (longest > capacity) {
      throw new ConfigError(`Cannot run token ${longest} of a text: there is room for ${capacity}`);
    }
    this.#choose(slots);
    for (const slot of slots) this.#lengths[slot]! += count;
    return await this.#sampler.run(slots, new Array<Commands>(count).fill(this.#step));
  }

  /** Tells the step which slots its rows are, unless it knows. */
  #choose(slots: readonly number[]): void {
    const wanted = slots.join();
    if (wanted === this.#active) return;
    const { full, cache } = this.#stepWorkspace;
    writeTensor(this.#device, cache!.slots, Uint32Array.from(slots));
    writeTensor(this.#device, full.rows.count, Uint32Array.of(slots.length));
    this.#active = wanted;
  }

  /** Replaces the token that a slot runs next: the text goes on as told, not as drawn. */
  force(slot: number, id: number): void {
    this.#sampler.force(slot, id);
  }

  /**
   * Sends every token to one depth, whatever the router says; 0 leaves the choice to the router again. To measure with.
   *
   * @throws ConfigError for a model without token choice, RangeError for a depth that it does not have.
   */
  forceDepth(depth: number): void {
    for (const { decisions } of [this.#prompt.workspace, this.#stepWorkspace]) {
      const decision = decisions.kind === "token_choice" ? decisions.decision : null;
      writeForcedDepth(this.#device, decision, { config: this.#config, depth });
    }
  }

  /** Logits (V) that the last token of `start`, or of the given row of the last `step`, was drawn from. */
  async logits(row: "prompt" | number): Promise<Float32Array> {
    const { logits } = row === "prompt" ? this.#prompt.workspace : this.#stepWorkspace;
    const start = (row === "prompt" ? 0 : row) * logits.shape[1]!;
    const view = viewTensor(logits, { start, shape: [this.#config.vocabSize] });
    return await readTensor(this.#device, view) as Float32Array;
  }

  /** The recorded programs, to time them: a prompt's chunk, a step, and the choice that ends a prompt. */
  get programs(): { readonly prompt: Commands; readonly step: Commands; readonly choice: Commands } {
    return { prompt: this.#prompt.commands, step: this.#step, choice: this.#promptEnd };
  }

  /** Frees the programs and all buffers. */
  [Symbol.dispose](): void {
    this.#prompt.destroy();
    for (const commands of [this.#promptEnd, this.#step, this.#sampler]) commands.destroy();
    this.#scope.destroy();
  }
}
