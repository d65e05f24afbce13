/** A model whose work is timed again and again, by the clock. */
import { setImmediate } from "node:timers";
import type { GpuDevice } from "../gpu/device.ts";
import type { ModelConfig } from "./config.ts";
import type { ActivationDtype } from "./layer_buffers.ts";
import type { ModelWeights } from "./model_weights.ts";
import type { WorkTime, WorkTimes } from "./speed_comparison.ts";
import type { StepShape, TrainingBuffers } from "./training.ts";
import { InferenceWork, trainingWork, type Work } from "./work.ts";

/** How much of each kind of work there is. */
export interface WorkSettings {
  readonly promptTokens: number;
  /** Decoding steps after the prompt; one of them is reported, their mean. */
  readonly steps: number;
  /** A training step's; null for none. */
  readonly shape: StepShape | null;
  /** Whether the training step's layers run again for their gradients. */
  readonly recompute: boolean;
  /** How the training step's layers store what their gradients need. */
  readonly activationDtype: ActivationDtype;
  readonly seed: number;
}

/** A model on a device with its programs, which are recorded once. */
export class TimedModel {
  readonly #inference: InferenceWork;
  readonly #training: Work | null;

  /**
   * @param training What a training step runs on; with a `shape` only.
   * @throws ConfigError for more tokens than the model has positions; MemoryError.
   */
  constructor(
    device: GpuDevice,
    { config, weights, training }: {
      config: ModelConfig;
      weights: ModelWeights;
      training: TrainingBuffers | null;
    },
    { shape, ...settings }: WorkSettings,
  ) {
    this.#inference = new InferenceWork(device, { config, weights }, settings);
    this.#training = training && shape &&
      trainingWork(device, { config, buffers: training }, { shape, seed: settings.seed });
  }

  /** Does all the work once and times it. The first time compiles kernels, and is no measurement. */
  async measure(): Promise<WorkTimes> {
    const times: WorkTimes = {
      prefill: await timeOf(this.#inference.prefill),
      decode: await timeOf(this.#inference.decode),
      ...(this.#training && { train: await timeOf(this.#training) }),
    };
    // Reading back blocks the event loop: let signals and timers through.
    await new Promise((resolve) => setImmediate(resolve));
    return times;
  }

  /** Frees what inference runs on. */
  [Symbol.dispose](): void {
    this.#inference[Symbol.dispose]();
  }
}

async function timeOf({ work, parts, tokens }: Work): Promise<WorkTime> {
  const start = performance.now();
  await work();
  return { milliseconds: (performance.now() - start) / parts, tokens };
}
