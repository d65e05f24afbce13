/**
 * What a choice is measured on: the variants that an adapter can run, and work to time them with.
 *
 * The work is as a model of a few hundred columns has it, so large on hardware that launching it does not count and so
 * small on a processor that all of it takes a second.
 */
import type { Commands } from "../commands.ts";
import type { GpuDevice } from "../device.ts";
import type { Allocator } from "../memory.ts";
import type { Tensor } from "../tensor.ts";
import { defaultTuning, type Tuning } from "./tuning.ts";

/** Work whose variants are compared. */
export interface TuningCase {
  readonly choice: keyof Tuning;
  /** What is timed. */
  readonly work: string;
  /** Values of the choice; the default comes first. */
  readonly candidates: readonly Tuning[keyof Tuning][];
  /** Makes the tensors. */
  readonly prepare: (scope: Allocator) => PreparedWork;
}

/** Work on tensors that are there. */
export interface PreparedWork {
  /** Records the work with the variant that the device is tuned to. */
  readonly record: (commands: Commands) => void;
  /** Whatever the work writes that is a result. */
  readonly outputs: readonly Tensor[];
  readonly flops: number;
}

/** What is for an adapter of this kind and can run on it, the default first. */
export function candidatesOf<Choice extends keyof Tuning>(
  device: GpuDevice,
  { choice, software, hardware, canRun }: {
    choice: Choice;
    software: readonly Tuning[Choice][];
    hardware: readonly Tuning[Choice][];
    canRun: (candidate: Tuning[Choice]) => boolean;
  },
): Tuning[Choice][] {
  const usual = defaultTuning(device)[choice];
  const offered = device.info.isSoftware ? software : hardware;
  return [usual, ...offered.filter((candidate) => candidate !== usual && canRun(candidate))];
}
