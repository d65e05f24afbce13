/** What a depth-wise batch keeps of the text in each slot, all of it on the GPU. */
import type { GpuDevice } from "../../gpu/device.ts";
import { SAMPLING_RECORD_LENGTH, seenWords } from "../../gpu/kernels/sample.ts";
import { LOG_RECORD_LENGTH } from "../../gpu/kernels/slot_finish.ts";
import { SLOT_FIELD_COUNT, SLOT_FIELDS, TALLY_COUNT } from "../../gpu/kernels/slot_fields.ts";
import type { Allocator } from "../../gpu/memory.ts";
import {
  createTensor,
  type Dtype,
  type Tensor,
  tensorFrom,
  viewTensor,
  writeTensor,
} from "../../gpu/tensor.ts";
import type { ModelConfig } from "../config.ts";

/** Tensors by slot, S of them; C hidden size. */
export interface BatchState {
  /** (fields, S) u32: see `SLOT_FIELDS`. */
  readonly slots: Tensor;
  /** (24) u32: see `TALLIES`. */
  readonly tallies: Tensor;
  /** (S, C): the token's state inside the recursion or after it. */
  readonly states: Tensor;
  /** (S, C): its state before the recursion; null where nothing comes back to it. */
  readonly starts: Tensor | null;
  /** (S): the gate of the step that is next, or of all steps. */
  readonly gates: Tensor;
  /** (S, 8) u32, (S, words) u32, (S) u32, (S) f32: see `sample`. */
  readonly sampling: Tensor;
  readonly seen: Tensor;
  readonly tokens: Tensor;
  readonly logProbabilities: Tensor;
  /** (1 + tokens) u32: the tokens that end a text, their number in front. */
  readonly ends: Tensor;
  /** (entries, 4) u32: see `finishTokens`. */
  readonly log: Tensor;
}

export function allocateBatchState(
  allocator: Allocator,
  { config, slots, logEntries, endTokens }: {
    config: ModelConfig;
    slots: number;
    logEntries: number;
    endTokens: readonly number[];
  },
): BatchState {
  const { hiddenSize, vocabSize, router } = config;
  const tensor = (label: string, shape: readonly number[], dtype: Dtype = "f32"): Tensor =>
    createTensor(allocator, { shape, dtype, label });
  return {
    slots: tensor("slots", [SLOT_FIELD_COUNT, slots], "u32"),
    tallies: tensor("tallies", [TALLY_COUNT], "u32"),
    states: tensor("states", [slots, hiddenSize]),
    starts: router?.kind === "token_choice"
      ? tensor("states before the recursion", [slots, hiddenSize])
      : null,
    gates: tensor("gates", [slots]),
    sampling: tensor("sampling", [slots, SAMPLING_RECORD_LENGTH], "u32"),
    seen: tensor("seen tokens", [slots, seenWords(vocabSize)], "u32"),
    tokens: tensor("drawn tokens", [slots], "u32"),
    logProbabilities: tensor("log-probabilities", [slots]),
    ends: tensorFrom(allocator, {
      data: Uint32Array.of(endTokens.length, ...endTokens),
      label: "end tokens",
    }),
    log: tensor("log", [logEntries, LOG_RECORD_LENGTH], "u32"),
  };
}

/** Positions (S) u32 of the slots' tokens. */
export function positionsOf({ slots }: BatchState): Tensor {
  const count = slots.shape[1]!;
  return viewTensor(slots, { start: SLOT_FIELDS.position * count, shape: [count] });
}

/** Sets fields of one slot. */
export function writeSlot(
  device: GpuDevice,
  { slots }: BatchState,
  { slot, ...fields }: { readonly slot: number } & Partial<Record<keyof typeof SLOT_FIELDS, number>>,
): void {
  const count = slots.shape[1]!;
  for (const [name, value] of Object.entries(fields)) {
    const start = SLOT_FIELDS[name as keyof typeof SLOT_FIELDS] * count + slot;
    writeTensor(device, viewTensor(slots, { start, shape: [1] }), Uint32Array.of(value));
  }
}
