/**
 * What draws the tokens of texts being decoded, a slot for each: settings, the tokens seen so far, the next token and
 * its position. All of it stays on the GPU; the host reads the history of what was chosen.
 */
import type { Commands } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import type { KvDtype } from "../gpu/kernels/attention_heads.ts";
import { advance, HISTORY_RECORD_LENGTH } from "../gpu/kernels/decode_step.ts";
import {
  NO_TOKEN,
  sample,
  SAMPLING_RECORD_LENGTH,
  samplingRecord,
  seenWords,
  type SlotSampling,
} from "../gpu/kernels/sample.ts";
import type { Allocator } from "../gpu/memory.ts";
import { readbackMode, readTensors } from "../gpu/readback.ts";
import {
  createTensor,
  type Dtype,
  type Tensor,
  type TensorData,
  viewTensor,
  writeTensor,
} from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { SeenTokens } from "./seen_tokens.ts";
import type { Workspace } from "./workspace.ts";

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

/** Steps whose choices the device keeps until they are read. */
export const MAX_STEPS_PER_READ = 16;

/** Where a read takes the runtime's 10 ms, many steps share one. */
export function stepsPerRead(device: GpuDevice): number {
  return readbackMode(device) === "awaited" ? MAX_STEPS_PER_READ : 1;
}

/** What is wrong with a text whose token cannot be chosen; with an f16 cache it need not be the weights. */
export function damagedLogits(kvDtype: KvDtype): RangeError {
  const reason = kvDtype === "f16"
    ? ", or its keys and values go beyond 65504, the largest in f16; use --kv-dtype f32"
    : "";
  return new RangeError(
    `Cannot choose a token: the logits are not numbers; the model's weights are damaged${reason}`,
  );
}

/** Tensors by slot; S slots. */
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

/** Draws the tokens of some texts. */
export class SlotSampler {
  readonly state: SamplerState;
  readonly #device: GpuDevice;
  readonly #config: ModelConfig;
  readonly #kvDtype: KvDtype;
  readonly #seen: SeenTokens;
  /** Where the history goes on. */
  #cursor = 0;

  /** @param promptRows Most prompt tokens that `see` takes at a time. */
  constructor(
    device: GpuDevice,
    { config, kvDtype, slots, promptRows, allocator }: {
      config: ModelConfig;
      kvDtype: KvDtype;
      slots: number;
      promptRows: number;
      allocator: Allocator;
    },
  ) {
    this.#device = device;
    this.#config = config;
    this.#kvDtype = kvDtype;
    const tensor = (label: string, shape: readonly number[], dtype: Dtype = "u32"): Tensor =>
      createTensor(allocator, { shape, dtype, label });
    this.state = {
      tokens: tensor("next tokens", [slots]),
      positions: tensor("positions", [slots]),
      sampling: tensor("sampling", [slots, SAMPLING_RECORD_LENGTH]),
      seen: tensor("seen tokens", [slots, seenWords(config.vocabSize)]),
      logProbabilities: tensor("log-probabilities", [slots], "f32"),
      history: tensor("history", [MAX_STEPS_PER_READ, slots, HISTORY_RECORD_LENGTH]),
      cursor: tensor("history cursor", [1]),
    };
    this.#seen = new SeenTokens(device, { seen: this.state.seen, rows: promptRows, allocator });
  }

  /**
   * Records, after a pass over cached texts, the draw of each row's token and its entry in the history.
   *
   * @param lastRow All rows belong to one text, whose last row alone has logits: a prompt.
   */
  record(commands: Commands, workspace: Workspace, { lastRow }: { lastRow: boolean }): void {
    const { cache, logits, full: packing, headPacking: { rows } } = workspace;
    const { slots, depths } = cache!;
    // A prompt's rows all have the slot of the text, so the one row with logits finds it in the first place.
    commands.mark("sampling");
    sample(commands, { logits, slots, ...this.state }, { rows, vocabSize: this.#config.vocabSize });
    advance(commands, { slots, depths, packing, ...this.state }, { lastRow });
  }

  /** Makes a slot ready for a text whose prompt has the given length. */
  start(slot: number, { promptLength, sampling }: { promptLength: number; sampling: SlotSampling }): void {
    const { sampling: records, seen, positions } = this.state;
    writeTensor(this.#device, slotOf(records, slot), samplingRecord(sampling));
    writeTensor(this.#device, slotOf(seen, slot), new Uint32Array(seen.shape[1]!));
    writeTensor(this.#device, slotOf(positions, slot), Uint32Array.of(promptLength - 1));
  }

  /** Adds prompt tokens to a slot's set of seen ones. */
  see(slot: number, ids: readonly number[]): void {
    this.#seen.add(slot, ids);
  }

  /** Replaces the token that a slot runs next. */
  force(slot: number, id: number): void {
    writeTensor(this.#device, slotOf(this.state.tokens, slot), Uint32Array.of(id));
  }

  /**
   * Runs programs, which chose with `record`, and reads what they chose: [step][slot], a step for each program.
   *
   * @param programs At most `MAX_STEPS_PER_READ`.
   * @throws RangeError for a choice among damaged logits.
   */
  async run(slots: readonly number[], programs: readonly Commands[]): Promise<DecodedToken[][]> {
    const steps = programs.length;
    if (this.#cursor + steps > MAX_STEPS_PER_READ) {
      this.#cursor = 0;
      writeTensor(this.#device, this.state.cursor, Uint32Array.of(0));
    }
    const { history } = this.state;
    const [, all, width] = history.shape as [number, number, number];
    const records = viewTensor(history, { start: this.#cursor * all * width, shape: [steps, all, width] });
    this.#cursor += steps;
    const [data] = await readTensors(this.#device, [records], { after: programs }) as [TensorData];
    const floats = new Float32Array(data.buffer);
    const { recursion, router } = this.#config;
    const fixedDepth = recursion && !router ? recursion.numRecursions : 0;
    return Array.from({ length: steps }, (_, step) =>
      slots.map((slot): DecodedToken => {
        const record = (step * all + slot) * width;
        const id = data[record]!;
        if (id === NO_TOKEN) {
          throw damagedLogits(this.#kvDtype);
        }
        return { id, logProbability: floats[record + 1]!, depth: fixedDepth + data[record + 2]! };
      }));
  }

  /** Frees the recorded program; the buffers are the allocator's. */
  destroy(): void {
    this.#seen.destroy();
  }
}

/** A slot's row of a tensor by slot. */
function slotOf(tensor: Tensor, slot: number): Tensor {
  const [, ...shape] = tensor.shape;
  const width = shape.reduce((product, size) => product * size, 1);
  return viewTensor(tensor, { start: slot * width, shape: [width] });
}
