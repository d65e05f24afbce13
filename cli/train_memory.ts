/** The GPU memory that a run needs, and what to do where there is less. */
import { MemoryError } from "../gpu/errors.ts";
import { formatBytes } from "../gpu/memory.ts";
import type { ModelConfig } from "../model/config.ts";
import type { Dataset } from "../model/text/dataset.ts";
import { evaluationSequences, type TrainSettings } from "../model/train.ts";
import { trainingMemory } from "../model/training.ts";
import type { ResolvedFlags } from "./train_flags.ts";

/** A run before anything of it is on a device. */
export interface TrainPlan {
  readonly config: ModelConfig;
  readonly settings: TrainSettings;
  readonly flags: ResolvedFlags;
}

/** @throws MemoryError when the run's buffers would take more than the limit. */
export function checkMemory(
  { config, settings, flags, dataset, limit, isResumed }: TrainPlan & {
    dataset: Dataset;
    limit: number;
    isResumed: boolean;
  },
): void {
  const sequences = flags.eval_every > 0 ? evaluationSequences(dataset, settings) : 0;
  const peak = plannedMemory({ config, settings, flags }, { sequences });
  if (peak <= limit) return;
  throw new MemoryError(
    `Cannot train: the run needs ${formatBytes(peak)} of GPU memory, ${formatBytes(limit)} are free; ` +
      (isResumed ? resumedAdvice(flags) : startAdvice(flags)),
  );
}

function startAdvice({ activations, recompute }: ResolvedFlags): string {
  const smaller = [
    ...activations === "f16" ? [] : ["--activations f16"],
    ...recompute ? [] : ["--recompute"],
  ];
  return (smaller.length === 0 ? "" : `give ${smaller.join(" or ")}, `) +
    "lower --batch-size or --sequence-length, or choose a smaller --model";
}

/** A run that goes on keeps its sizes and how it rounds: with activations in f16, running layers again rounds otherwise. */
function resumedAdvice({ activations, recompute, eval_every: evaluateEvery }: ResolvedFlags): string {
  const smaller = [
    ...recompute || activations === "f16" ? [] : ["give --recompute"],
    ...evaluateEvery === 0 ? [] : ["give --eval-every 0"],
    "free memory",
    "go on where there is more",
  ];
  return smaller.join(" or ");
}

/** Bytes of GPU memory that a run needs. */
export function plannedMemory(
  { config, settings: { shape, routerWarmup: warmup }, flags: { recompute, activations } }: TrainPlan,
  { sequences: evaluationSequences }: { sequences: number },
): number {
  const stored = { recompute, activationDtype: activations };
  return trainingMemory({ config, shape, warmup, ...stored, evaluationSequences }).peak;
}
