import markSeenCode from "./mark_seen.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import sampleCode from "./sample.wgsl" with { type: "text" };
import sampleCutoffCode from "./sample_cutoff.wgsl" with { type: "text" };
import sampleNoiseCode from "./sample_noise.wgsl" with { type: "text" };
import workgroupScanCode from "./workgroup_scan.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

const SAMPLE = defineKernel("sample.wgsl", sampleCode, {
  "sample_cutoff.wgsl": sampleCutoffCode,
  "sample_noise.wgsl": sampleNoiseCode,
  "row_reduce.wgsl": rowReduceCode,
  "workgroup_scan.wgsl": workgroupScanCode,
});
const MARK_SEEN = defineKernel("mark_seen.wgsl", markSeenCode);

/** What `sample` writes for a row whose logits are damaged: it chose nothing. */
export const NO_TOKEN = 0xffffffff;

/** Elements of a sampling record. */
export const SAMPLING_RECORD_LENGTH = 8;

/** Times that an invocation goes over its logits: likeliest, shortlist, two weights, two cutoffs' four digits, draw. */
const PASSES = 13;

/** Loop turns for each vector of four logits in a pass: its own, its elements, the end of the loop over those. */
const TURNS_PER_VECTOR = 6;

/** Loop turns of an invocation that do not depend on the logits, rounded up. */
const FIXED_TURNS = 1000;

/** Invocations of a workgroup in mark_seen.wgsl. */
const MARK_WIDTH = 64;

const SMALLEST_FLOAT = 2 ** -126;
const LARGEST_FLOAT = (2 - 2 ** -23) * 2 ** 127;

/** How a slot draws its tokens; the filters apply in the order repeat penalty, topK, topP, minP, temperature. */
export interface SlotSampling {
  /** Divides the logits of the kept tokens; 0 always takes the likeliest, ties to the lowest id. */
  readonly temperature: number;
  /** Keeps the k likeliest tokens and those as likely as the last of them; 0 is off. */
  readonly topK: number;
  /** Keeps, of those, the fewest likeliest whose probabilities reach this share, and ties with the last; 1 is off. */
  readonly topP: number;
  /** Keeps tokens at least this fraction as likely as the likeliest; 0 is off. */
  readonly minP: number;
  /** Logits of tokens seen in the text so far are divided (positive) or multiplied (negative) by this; 1 is off. */
  readonly repeatPenalty: number;
  /** Whole number; its lowest 32 bits count. */
  readonly seed: number;
}

/**
 * A row of `sample`'s sampling tensor.
 *
 * @throws RangeError for a setting that cannot be meant.
 */
export function samplingRecord(
  { temperature, topK, topP, minP, repeatPenalty, seed }: SlotSampling,
): Uint32Array<ArrayBuffer> {
  const isUsable = temperature >= 0 && topK >= 0 && topP >= 0 && topP <= 1 && minP >= 0 && minP <= 1 &&
    repeatPenalty > 0;
  if (!isUsable) {
    const settings = JSON.stringify({ temperature, topK, topP, minP, repeatPenalty });
    throw new RangeError(`Cannot sample with ${settings}`);
  }
  const record = new Uint32Array(SAMPLING_RECORD_LENGTH);
  const floats = new Float32Array(record.buffer);
  // Factors instead of divisors, and a logarithm, because the GPU's own quotients and exponentials are not exact.
  if (temperature > 0) floats[0] = Math.min(Math.max(1 / temperature, SMALLEST_FLOAT), LARGEST_FLOAT);
  record[1] = Math.min(topK, 0xffffffff);
  floats[2] = topP;
  floats[3] = minP > 0 ? Math.log(minP) : -LARGEST_FLOAT;
  floats[4] = repeatPenalty;
  floats[5] = 1 / repeatPenalty;
  record[6] = seed;
  return record;
}

/** u32 elements of a slot's set of seen tokens. */
export function seenWords(vocabSize: number): number {
  return Math.ceil(vocabSize / 32);
}

/**
 * Records drawing one token for each row of logits. The draw depends on the slot's seed and position and the logits,
 * on no other slot. A row with a NaN, an Infinity or no finite logit gets `NO_TOKEN`, with log probability 0.
 *
 * logits (rows, stride) f32, stride a multiple of 4 and at least vocabSize: the columns from vocabSize on are left out.
 * slots (rows) u32: row r belongs to slot slots_r, the first of `slotStride` elements, no two rows to one slot. Indexed by slot, S of them: sampling
 * (S, 8) u32, records of `samplingRecord`; positions (S) u32 of the last token that was run; seen
 * (S, `seenWords(vocabSize)`) u32, bit v % 32 of word v / 32 for token v, gets the chosen token. Overwritten at the
 * rows' slots: tokens (S) u32; logProbabilities (S) f32, the natural logarithm of the model's own probability of the
 * chosen token, before penalty and filters.
 *
 * @throws TypeError for a stride below vocabSize or not a multiple of 4, RangeError for a vocabulary that is more than
 * one workgroup can loop over.
 */
export function sample(
  commands: Commands,
  { logits, slots, sampling, positions, seen, tokens, logProbabilities }: {
    logits: Tensor;
    slots: Tensor;
    sampling: Tensor;
    positions: Tensor;
    seen: Tensor;
    tokens: Tensor;
    logProbabilities: Tensor;
  },
  { rows, vocabSize, slotStride = 1 }: { rows: Rows; vocabSize: number; slotStride?: number },
): void {
  const stride = logits.shape.at(-1)!;
  if (stride < vocabSize || stride % 4 !== 0) {
    throw new TypeError(
      `Cannot record sample: logits has shape (${logits.shape}), ` +
        `expected rows of at least ${vocabSize} columns, a multiple of 4`,
    );
  }
  const words = seenWords(vocabSize);
  const [capacity = 0] = sampling.shape;
  checkShape("sample", {
    logits: [logits, [rows.maximum, stride]],
    slots: [slots, [rows.maximum * slotStride]],
    sampling: [sampling, [capacity, SAMPLING_RECORD_LENGTH]],
    positions: [positions, [capacity]],
    seen: [seen, [capacity, words]],
    tokens: [tokens, [capacity]],
    logProbabilities: [logProbabilities, [capacity]],
  });
  // A software adapter pays for each vector of invocations at each barrier.
  const width = commands.device.info.isSoftware ? 64 : 256;
  const most = Math.floor((MAX_LOOP_TURNS - FIXED_TURNS) / (PASSES * TURNS_PER_VECTOR)) * width * 4;
  if (vocabSize > most) {
    throw new RangeError(`Cannot sample from ${vocabSize} tokens in one dispatch, at most ${most}`);
  }
  commands.dispatch(SAMPLE, {
    entryPoint: "sample",
    tensors: {
      rows: rows.count,
      logits,
      slots,
      sampling,
      positions,
      seen,
      tokens,
      log_probabilities: logProbabilities,
    },
    constants: {
      VOCAB: vocabSize,
      STRIDE: stride,
      WORDS: words,
      SLOT_STRIDE: slotStride,
      WIDTH: width,
      LANES: width,
      ROWS: 1,
    },
    grid: rowGrid(rows, { unitsPerGroup: 1 }),
    // The likeliest token and its probability; what a slot's settings ask for, filters and noise, comes on top.
    cost: rowCost(rows, { columns: vocabSize, numbers: 1, flops: 3 }),
  });
}

/**
 * Records adding tokens of the texts to the sets that `sample` penalises: ids_r to the set of slot slots_r.
 *
 * ids, slots (rows) u32, any number of rows to a slot; seen (S, words) u32. An id beyond the words changes nothing.
 */
export function markSeen(
  commands: Commands,
  { ids, slots, seen }: { ids: Tensor; slots: Tensor; seen: Tensor },
  { rows }: { rows: Rows },
): void {
  checkShape("markSeen", { ids: [ids, [rows.maximum]], slots: [slots, [rows.maximum]] });
  commands.dispatch(MARK_SEEN, {
    entryPoint: "mark_seen",
    tensors: { rows: rows.count, ids, slots, seen },
    constants: { WORDS: seen.shape.at(-1)! },
    grid: rowGrid(rows, { unitsPerGroup: MARK_WIDTH }),
    // An id, a slot, and a word of the set, read and written.
    cost: rowCost(rows, { numbers: 4 }),
  });
}
