/**
 * Which tokens a recursion step works on, as buffers: made from `candidates`, the tokens of the step before, the result
 * is `packing`. Expert choice and token choice both decide by filling these.
 */
import type { Allocator } from "../gpu/memory.ts";
import { dynamicPacking, fixedPacking, type Packing } from "../gpu/packing.ts";
import { createTensor, type Tensor, tensorFrom, writeTensor } from "../gpu/tensor.ts";
import { type ExpertChoiceConfig, keptTokens, type ModelConfig } from "./config.ts";
import { allocateRouter, type RouterActivations } from "./router.ts";

/** How a forward pass chooses tokens. */
export type Routing =
  /** As in training: the k_r best of each sequence, which looks at later tokens. */
  | "top-k"
  /** As in generation: each token by its own past alone. */
  | "causal";

/** Sizes that the selections of a pass depend on. */
export interface SelectionShape {
  /** Tokens of each sequence. */
  readonly lengths: readonly number[];
  readonly routing: Routing;
  readonly backward: boolean;
  /** Whether `writeKept` changes the number of tokens kept from pass to pass. */
  readonly movingCapacity: boolean;
}

/** The tokens of one recursion step, counted from 0. */
export interface Selection {
  readonly step: number;
  readonly candidates: Packing;
  readonly packing: Packing;
  /** (packed rows) u32: which candidate each packed row is. */
  readonly chosen: Tensor;
  /** (candidates + 1) u32: scratch of a choice by threshold. */
  readonly prefix: Tensor;
}

/** The decision of expert choice. */
export interface ExpertSelection extends Selection {
  /** (B, 4) u32: first candidate, candidates, first kept row and kept rows of each sequence; null if not by top-k. */
  readonly ranges: Tensor | null;
  /** (candidates) */
  readonly logits: Tensor;
  readonly router: RouterActivations | null;
  /** The router that learns what top-k decides, if there is one. */
  readonly auxiliary: AuxiliaryScores | null;
  /** (packed rows): w = alpha * function(logit). */
  readonly gates: Tensor;
  /** (candidates): 1 for kept, 0 for others; what the auxiliary loss wants of the logits. */
  readonly labels: Tensor;
  /** (candidates): binary cross-entropy, squared logit, and 1 where the logit's sign agrees with the label. */
  readonly auxiliaryLosses: Tensor;
  readonly squaredLogits: Tensor;
  readonly agreements: Tensor;
  readonly gradLogits: Tensor;
  readonly gradGates: Tensor;
}

/** Scores of an auxiliary router for a step's candidates. */
export interface AuxiliaryScores {
  readonly router: RouterActivations | null;
  /** (candidates) */
  readonly logits: Tensor;
  readonly gradLogits: Tensor;
  /** (candidates): what the losses of one of the two routers are written to that counts for nothing. */
  readonly unused: readonly Tensor[];
}

/** Buffers for the decisions of expert choice; each step's candidates are what the step before kept. */
export function allocateExpertSelections(
  device: Allocator,
  { config, full, shape }: { config: ModelConfig; full: Packing; shape: SelectionShape },
): ExpertSelection[] {
  const router = config.router as ExpertChoiceConfig;
  const { hiddenSize } = config;
  const { numRecursions } = config.recursion!;
  const { backward, routing } = shape;
  const kept = keptPerSequence(config, shape);
  const selections: ExpertSelection[] = [];
  for (let step = 0; step < numRecursions; step++) {
    const candidates = selections[step - 1]?.packing ?? full;
    const { maximum } = candidates.rows;
    const packing = packingOf(device, { router, candidates, step, kept, shape });
    const tensor = (label: string, size: number): Tensor => createTensor(device, { shape: [size], label });
    const identity = Uint32Array.from({ length: packing.rows.maximum }, (_, slot) => slot);
    const mlp = (): RouterActivations | null =>
      allocateRouter(device, { router, hiddenSize, packing: candidates, backward });
    selections.push({
      step,
      candidates,
      packing,
      ranges: routing === "causal" ? null : createTensor(device, {
        shape: [shape.lengths.length, 4],
        dtype: "u32",
        label: "candidate ranges",
      }),
      logits: tensor("router logits", maximum),
      router: mlp(),
      auxiliary: router.auxiliary !== "router" ? null : {
        router: mlp(),
        logits: tensor("auxiliary logits", maximum),
        gradLogits: tensor("auxiliary logits gradient", maximum),
        unused: Array.from({ length: 3 }, () => tensor("unused losses", maximum)),
      },
      chosen: tensorFrom(device, { data: identity, label: "chosen candidates" }),
      gates: tensor("gates", packing.rows.maximum),
      labels: tensorFrom(device, { data: new Float32Array(maximum).fill(1), label: "router labels" }),
      prefix: createTensor(device, { shape: [maximum + 1], dtype: "u32", label: "prefix counts" }),
      auxiliaryLosses: tensor("auxiliary losses", maximum),
      squaredLogits: tensor("squared logits", maximum),
      agreements: tensor("agreements", maximum),
      gradLogits: tensor("router logits gradient", maximum),
      gradGates: tensor("gates gradient", packing.rows.maximum),
    });
  }
  if (routing === "top-k") writeKept(device, selections, { config, shape, warmup: 0 });
  return selections;
}

function packingOf(
  device: Allocator,
  { router, candidates, step, kept, shape: { routing, movingCapacity, lengths } }: {
    router: ExpertChoiceConfig;
    candidates: Packing;
    step: number;
    kept: readonly (readonly number[])[];
    shape: SelectionShape;
  },
): Packing {
  if (keepsEveryCandidate(router, { step, kept, lengths, routing, movingCapacity })) return candidates;
  return routing === "causal" || movingCapacity
    ? dynamicPacking(device, { maximum: candidates.rows.maximum })
    : fixedPacking(device, { count: total(kept[step]!) });
}

/** A step that has nothing to decide: top-k of all, or the first causal step when its capacity is 1. */
function keepsEveryCandidate(
  { capacities }: ExpertChoiceConfig,
  { step, kept, lengths, routing, movingCapacity }: {
    step: number;
    kept: readonly (readonly number[])[];
    lengths: readonly number[];
    routing: Routing;
    movingCapacity: boolean;
  },
): boolean {
  if (routing === "top-k" && !(movingCapacity && step > 0)) {
    return total(kept[step]!) === total(kept[step - 1] ?? lengths);
  }
  return step === 0 && (capacities?.[0] ?? 1) === 1;
}

/** Tokens that each step keeps of each sequence: [step][sequence]. */
function keptPerSequence(
  { router, recursion }: ModelConfig,
  { lengths, warmup = 0 }: { lengths: readonly number[]; warmup?: number },
): number[][] {
  const { numRecursions } = recursion!;
  const kept = lengths.map((tokens) =>
    keptTokens(router as ExpertChoiceConfig, { numRecursions, tokens, warmup })
  );
  return Array.from({ length: numRecursions }, (_, r) => kept.map((counts) => counts[r]!));
}

/**
 * Tells top-k how many tokens each step keeps: at the start, and with a moving capacity before each pass.
 *
 * @returns the tokens kept by each step.
 */
export function writeKept(
  device: Allocator,
  selections: readonly ExpertSelection[],
  { config, shape: { lengths }, warmup }: { config: ModelConfig; shape: SelectionShape; warmup: number },
): number[] {
  const kept = keptPerSequence(config, { lengths, warmup });
  selections.forEach(({ ranges, packing, candidates, step }) => {
    let [candidate, row] = [0, 0];
    const records = kept[step]!.flatMap((count, b) => {
      const available = (kept[step - 1] ?? lengths)[b]!;
      const record = [candidate, available, row, count];
      candidate += available;
      row += count;
      return record;
    });
    writeTensor(device, ranges!, Uint32Array.from(records));
    if (packing !== candidates) writeTensor(device, packing.rows.count, Uint32Array.of(row));
  });
  return kept.map(total);
}

function total(counts: readonly number[]): number {
  return counts.reduce((sum, count) => sum + count, 0);
}
