/**
 * Cached decoding: a text's prompt runs once, in chunks; then every token costs one row. Routing, cache, skipped
 * recursions, sampling and the next token's id all stay on the GPU; the host reads what was chosen, a step or some steps
 * at a time.
 */
import { Commands, submit } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { advance, HISTORY_RECORD_LENGTH, nextRows } from "../gpu/kernels/decode_step.ts";
import {
  markSeen,
  NO_TOKEN,
  sample,
  SAMPLING_RECORD_LENGTH,
  samplingRecord,
  seenWords,
  type SlotSampling,
} from "../gpu/kernels/sample.ts";
import { BufferScope } from "../gpu/memory.ts";
import { readTensor } from "../gpu/readback.ts";
import { type Rows, staticRows } from "../gpu/rows.ts";
import { createTensor, type Dtype, type Tensor, viewTensor, writeTensor } from "../gpu/tensor.ts";
import { CachedPass, clearSlot } from "./cached_pass.ts";
import { ConfigError, type ModelConfig } from "./config.ts";
import { allocateCache, type KvCache } from "./kv_cache.ts";
import type { ParameterViews } from "./parameter_layout.ts";
import { transformerForward } from "./transformer.ts";
import { allocateWorkspace, type Workspace } from "./workspace.ts";

/** A token that a step chose. */
export interface DecodedToken {
  readonly id: number;
  /** Natural logarithm of the model's own probability. */
  readonly logProbability: number;
  /**
   * Recursion steps that the text's last token before it ran: the work that decided this token. Vanilla models have 0,
   * the recursive baseline always its number of recursions.
   */
  readonly depth: number;
}

/** Tokens of a prompt that run at a time. */
const PREFILL_ROWS = 256;

/** Steps whose choices the device keeps until they are read. */
export const MAX_STEPS_PER_READ = 16;

/** What the sampler keeps of each slot; S slots. */
interface SamplerState {
  /** (S) u32: the token to run next, and the position that it will have. */
  readonly tokens: Tensor;
  readonly positions: Tensor;
  /** (S, 8) u32, (S, words) u32, (S) f32. */
  readonly sampling: Tensor;
  readonly seen: Tensor;
  readonly logProbabilities: Tensor;
  /** (steps, S, 4) u32 and (1) u32: see `advance`. */
  readonly history: Tensor;
  readonly cursor: Tensor;
}

/** Some texts being continued, each in a slot of its own. */
export class Decoder {
  readonly cache: KvCache;
  readonly #device: GpuDevice;
  readonly #config: ModelConfig;
  readonly #scope: BufferScope;
  readonly #state: SamplerState;
  readonly #prompt: CachedPass;
  readonly #promptEnd: Commands;
  readonly #step: Commands;
  readonly #stepWorkspace: Workspace;
  /** Prompt tokens, their slots and their number, for the sampler's set of seen tokens. */
  readonly #mark: {
    readonly commands: Commands;
    readonly ids: Tensor;
    readonly slots: Tensor;
    readonly rows: Rows;
  };
  /** Tokens of each slot's text that have run. */
  readonly #lengths: number[];

  /**
   * @param slots Texts at a time.
   * @param capacity Most tokens of a text.
   * @throws ConfigError for more tokens than the model has positions, MemoryError when it does not fit.
   */
  constructor(
    device: GpuDevice,
    { config, weights, slots, capacity }: {
      config: ModelConfig;
      weights: ParameterViews;
      slots: number;
      capacity: number;
    },
  ) {
    this.#device = device;
    this.#config = config;
    this.#scope = new BufferScope(device);
    this.#lengths = new Array<number>(slots).fill(0);
    const allocator = this.#scope;
    this.cache = allocateCache(allocator, { config, slots, capacity });
    this.#state = allocateSampler(allocator, { config, slots });
    const model = { config, weights, cache: this.cache };
    const rows = Math.min(PREFILL_ROWS, capacity);
    this.#prompt = new CachedPass(device, { ...model, rows, head: "one", allocator });
    this.#promptEnd = new Commands(device, "first token");
    this.#recordChoice(this.#promptEnd, this.#prompt.workspace, { lastRow: true });

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
    nextRows(this.#step, { slots: cache!.slots, ...this.#state, ids, packing });
    transformerForward(this.#step, { config, weights, workspace: this.#stepWorkspace });
    this.#recordChoice(this.#step, this.#stepWorkspace, { lastRow: false });

    const indices = (label: string): Tensor =>
      createTensor(allocator, { shape: [rows], dtype: "u32", label });
    this.#mark = {
      commands: new Commands(device, "seen tokens"),
      ids: indices("seen ids"),
      slots: indices("seen slots"),
      rows: staticRows(allocator, rows),
    };
    markSeen(this.#mark.commands, { ...this.#mark, seen: this.#state.seen }, { rows: this.#mark.rows });
  }

  /** Records the draw of each row's token, and its entry in the history. */
  #recordChoice(commands: Commands, workspace: Workspace, { lastRow }: { lastRow: boolean }): void {
    const { cache, logits, full: packing, headPacking: { rows } } = workspace;
    const { slots, depths } = cache!;
    const { vocabSize } = this.#config;
    // A prompt's rows all have the slot of the text, so the one row with logits finds it in the first place.
    sample(commands, { logits, slots, ...this.#state }, { rows, vocabSize });
    advance(commands, { slots, depths, packing, ...this.#state }, { lastRow });
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
    const device = this.#device;
    const { sampling: records, seen, positions } = this.#state;
    clearSlot(device, this.cache, slot);
    writeTensor(device, slotOf(records, slot), samplingRecord(sampling));
    writeTensor(device, slotOf(seen, slot), new Uint32Array(seen.shape[1]!));
    writeTensor(device, slotOf(positions, slot), Uint32Array.of(prompt.length - 1));
    this.#rewind();
    const { rows } = this.#prompt;
    for (let start = 0; start < prompt.length; start += rows) {
      const ids = prompt.slice(start, start + rows);
      this.#markSeen(slot, ids);
      const isLast = start + rows >= prompt.length;
      this.#prompt.run({ slot, start, ids }, { then: isLast ? [this.#promptEnd] : [] });
    }
    this.#lengths[slot] = prompt.length;
    const [[token]] = await this.#read([slot], { steps: 1 }) as [[DecodedToken]];
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
    const device = this.#device;
    const { full, cache } = this.#stepWorkspace;
    writeTensor(device, cache!.slots, Uint32Array.from(slots));
    writeTensor(device, full.rows.count, Uint32Array.of(slots.length));
    this.#rewind();
    for (let i = 0; i < count; i++) submit(device, [this.#step]);
    for (const slot of slots) this.#lengths[slot]! += count;
    return await this.#read(slots, { steps: count });
  }

  /** Replaces the token that a slot runs next: the text goes on as told, not as drawn. */
  force(slot: number, id: number): void {
    writeTensor(this.#device, slotOf(this.#state.tokens, slot), Uint32Array.of(id));
  }

  /**
   * Sends every token to one depth, whatever the router says; 0 leaves the choice to the router again. To measure with.
   *
   * @throws ConfigError for a model without token choice, RangeError for a depth that it does not have.
   */
  forceDepth(depth: number): void {
    for (const { decisions } of [this.#prompt.workspace, this.#stepWorkspace]) {
      if (decisions.kind !== "token_choice") throw new ConfigError("Cannot force a depth without token choice");
      const { numRecursions } = this.#config.recursion!;
      if (!(depth >= 0 && depth <= numRecursions)) {
        throw new RangeError(`Cannot force depth ${depth}: the model has 1 to ${numRecursions}`);
      }
      writeTensor(this.#device, decisions.decision.forced, Uint32Array.of(depth));
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

  /** Tokens of a slot's text that have run. */
  length(slot: number): number {
    return this.#lengths[slot]!;
  }

  /** Frees the programs and all buffers. */
  [Symbol.dispose](): void {
    this.#prompt.destroy();
    for (const commands of [this.#promptEnd, this.#step, this.#mark.commands]) commands.destroy();
    this.#scope.destroy();
  }

  #rewind(): void {
    writeTensor(this.#device, this.#state.cursor, Uint32Array.of(0));
  }

  #markSeen(slot: number, prompt: readonly number[]): void {
    const { commands, ids, slots, rows } = this.#mark;
    writeTensor(this.#device, ids, Uint32Array.from(prompt));
    writeTensor(this.#device, slots, new Uint32Array(prompt.length).fill(slot));
    writeTensor(this.#device, rows.count, Uint32Array.of(prompt.length));
    submit(this.#device, [commands]);
  }

  async #read(slots: readonly number[], { steps }: { steps: number }): Promise<DecodedToken[][]> {
    const { history } = this.#state;
    const [, all, width] = history.shape as [number, number, number];
    const data = await readTensor(this.#device, viewTensor(history, { shape: [steps, all, width] }));
    const floats = new Float32Array(data.buffer);
    const { recursion, router } = this.#config;
    const fixedDepth = recursion && !router ? recursion.numRecursions : 0;
    return Array.from({ length: steps }, (_, step) =>
      slots.map((slot): DecodedToken => {
        const record = (step * all + slot) * width;
        const id = data[record]!;
        if (id === NO_TOKEN) {
          throw new RangeError(
            "Cannot choose a token: the logits are not numbers; the model's weights are damaged",
          );
        }
        return { id, logProbability: floats[record + 1]!, depth: fixedDepth + data[record + 2]! };
      }));
  }
}

function allocateSampler(
  device: BufferScope,
  { config: { vocabSize }, slots }: { config: ModelConfig; slots: number },
): SamplerState {
  const tensor = (label: string, shape: readonly number[], dtype: Dtype = "u32"): Tensor =>
    createTensor(device, { shape, dtype, label });
  return {
    tokens: tensor("next tokens", [slots]),
    positions: tensor("positions", [slots]),
    sampling: tensor("sampling", [slots, SAMPLING_RECORD_LENGTH]),
    seen: tensor("seen tokens", [slots, seenWords(vocabSize)]),
    logProbabilities: tensor("log-probabilities", [slots], "f32"),
    history: tensor("history", [MAX_STEPS_PER_READ, slots, HISTORY_RECORD_LENGTH]),
    cursor: tensor("history cursor", [1]),
  };
}

/** A slot's row of a tensor by slot. */
function slotOf(tensor: Tensor, slot: number): Tensor {
  const [, ...shape] = tensor.shape;
  const width = shape.reduce((product, size) => product * size, 1);
  return viewTensor(tensor, { start: slot * width, shape: [width] });
}
