/**
 * Generation: causal routing for prompt and new tokens alike, so that a token's depth depends on what came before it
 * and nothing else.
 */
import { setImmediate } from "node:timers";
import type { GpuDevice } from "../gpu/device.ts";
import type { KvDtype } from "../gpu/kernels/attention_heads.ts";
import { ConfigError, type ModelConfig } from "./config.ts";
import { Decoder } from "./decoder.ts";
import type { ModelWeights } from "./model_weights.ts";
import { type DecodedToken, stepsPerRead } from "./slot_sampler.ts";
import { likeliestTokens, type SamplingOptions, type TokenProbability } from "./sampling.ts";

/** One generated token. */
export interface GeneratedToken extends DecodedToken {
  /** The likeliest alternatives, when asked for. */
  readonly top: readonly TokenProbability[];
}

export interface GenerateOptions {
  readonly prompt: readonly number[];
  /** Most tokens to generate; fewer where the model's positions end, see `tokenRoom`. */
  readonly count: number;
  readonly sampling: SamplingOptions;
  readonly seed: number;
  /** Alternatives reported with each token. */
  readonly logProbabilities: number;
  /** Generation ends before any of these tokens. */
  readonly endTokens: readonly number[];
  /** How the cache stores keys and values; f32 unless told. */
  readonly kvDtype?: KvDtype;
}

/**
 * How many tokens can follow a prompt: the last one needs no position, as it does not run.
 *
 * @throws ConfigError for a prompt that the model has no positions for.
 */
export function tokenRoom(
  { maxPositionEmbeddings }: ModelConfig,
  { prompt }: { prompt: readonly number[] },
): number {
  if (prompt.length > maxPositionEmbeddings) {
    throw new ConfigError(
      `Cannot generate: the prompt has ${prompt.length} tokens, the model ${maxPositionEmbeddings} positions ` +
        "(max_position_embeddings); give a shorter prompt",
    );
  }
  return maxPositionEmbeddings - prompt.length + 1;
}

/**
 * Generates tokens one by one.
 *
 * @throws ConfigError for an empty prompt, or one longer than the model's positions; RangeError for damaged weights.
 */
export async function* generate(
  device: GpuDevice,
  { config, weights }: { config: ModelConfig; weights: ModelWeights },
  options: GenerateOptions,
): AsyncGenerator<GeneratedToken> {
  const { prompt, sampling, seed, endTokens, logProbabilities, kvDtype = "f32" } = options;
  const count = Math.min(options.count, tokenRoom(config, options));
  if (count === 0) return;
  const capacity = Math.max(prompt.length, prompt.length + count - 1);
  using decoder = new Decoder(device, { config, weights, slots: 1, capacity, kvDtype });
  let tokens = [await decoder.start(0, { prompt, sampling: { ...sampling, seed } })];
  for (let done = 0; done < count;) {
    for (const token of tokens) {
      if (endTokens.includes(token.id)) return;
      const row = done === 0 ? "prompt" : 0;
      const top = logProbabilities === 0
        ? []
        : likeliestTokens(await decoder.logits(row), { count: logProbabilities });
      yield { ...token, top };
      done++;
    }
    if (done >= count) return;
    // Reading back blocks the event loop: let signals through.
    await new Promise((resolve) => setImmediate(resolve));
    // The logits of each step are wanted before the next one writes its own.
    const together = logProbabilities === 0 ? stepsPerRead(device) : 1;
    const steps = Math.min(count - done, together);
    tokens = (await decoder.step([0], { count: steps })).map(([token]) => token!);
  }
}
