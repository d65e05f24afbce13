/** A model's work that can be done again and again to be timed: a prompt, decoding steps, a training step. */
import type { GpuDevice } from "../gpu/device.ts";
import type { ModelConfig } from "./config.ts";
import { Decoder } from "./decoder.ts";
import type { ModelWeights } from "./model_weights.ts";
import { DEFAULT_OPTIMIZER } from "./optimizer.ts";
import { uniform } from "./random.ts";
import { DEFAULT_SAMPLING } from "./sampling.ts";
import { stepsPerRead } from "./slot_sampler.ts";
import { type StepShape, type TrainingBuffers, TrainingPrograms } from "./training.ts";

/** Work of some equal parts, one of which is reported. */
export interface Work {
  /** Does all of it, to the end of what the GPU does. */
  readonly work: () => Promise<unknown>;
  readonly parts: number;
  /** Of one part. */
  readonly tokens: number;
}

/** A random prompt and the steps after it, as generation runs them: the steps need the prompt to have run just before. */
export class InferenceWork {
  /** The whole prompt, all its chunks, and the choice of the first new token. */
  readonly prefill: Work;
  /** The steps; a part is one token. */
  readonly decode: Work;
  readonly #device: GpuDevice;
  readonly #decoder: Decoder;
  readonly #steps: number;
  readonly #hasDepths: boolean;
  #depths: number[] = [];

  /** @throws ConfigError for more tokens than the model has positions; MemoryError. */
  constructor(
    device: GpuDevice,
    { config, weights }: { config: ModelConfig; weights: ModelWeights },
    { promptTokens, steps, seed }: { promptTokens: number; steps: number; seed: number },
  ) {
    this.#device = device;
    this.#steps = steps;
    this.#hasDepths = config.recursion !== null;
    this.#decoder = new Decoder(device, { config, weights, slots: 1, capacity: promptTokens + steps });
    const prompt = Array.from(randomTokens(config, { seed, count: promptTokens }));
    this.prefill = {
      work: () => this.#decoder.start(0, { prompt, sampling: { ...DEFAULT_SAMPLING, seed } }),
      parts: 1,
      tokens: promptTokens,
    };
    this.decode = { work: () => this.#decode(), parts: steps, tokens: 1 };
  }

  async #decode(): Promise<void> {
    this.#depths = [];
    // As generation does: where a read takes the runtime's 10 ms, several steps share one.
    const together = stepsPerRead(this.#device);
    for (let done = 0; done < this.#steps; done += together) {
      const tokens = await this.#decoder.step([0], { count: Math.min(together, this.#steps - done) });
      for (const [token] of tokens) this.#depths.push(token!.depth);
    }
  }

  /** Recursion steps that the token of each of the last decoding steps ran; null without recursion. */
  get depths(): readonly number[] | null {
    return this.#hasDepths ? this.#depths : null;
  }

  /** Frees the decoder. */
  [Symbol.dispose](): void {
    this.#decoder[Symbol.dispose]();
  }
}

/** A training step on a random batch. Its learning rate is 0, so that every time does the same. */
export function trainingWork(
  device: GpuDevice,
  { config, buffers }: { config: ModelConfig; buffers: TrainingBuffers },
  { shape, seed }: { shape: StepShape; seed: number },
): Work {
  const programs = new TrainingPrograms(device, { config, shape, buffers, settings: DEFAULT_OPTIMIZER });
  const count = shape.batchSize * shape.sequenceLength;
  const batches = Array.from({ length: shape.gradientAccumulation }, (_, i) => {
    const tokens = randomTokens(config, { seed: seed + i, count: count * 2 });
    return { ids: tokens.slice(0, count), targets: tokens.slice(count) };
  });
  return {
    work: () => programs.step(batches, { learningRate: 0, step: 0, seed }),
    parts: 1,
    tokens: count * batches.length,
  };
}

function randomTokens(
  { vocabSize }: ModelConfig,
  { seed, count }: { seed: number; count: number },
): Uint32Array<ArrayBuffer> {
  const next = uniform(seed, "profile");
  return Uint32Array.from({ length: count }, () => Math.floor(next() * vocabSize));
}
