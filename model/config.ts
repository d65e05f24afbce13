/** Model configuration: what a model is, and the sizes that follow from it. Read and checked by config_file.ts. */
import { oneLine } from "./files/one_line.ts";

/** Characters of an error's message; what is longer quotes a damaged file. */
const MAX_MESSAGE = 1000;

/** How unrolled layers map to unique ones (paper, section on parameter sharing). */
export type Sharing = "cycle" | "middle_cycle" | "sequence" | "middle_sequence";

/** How the output z of a recursion step changes the state x of a chosen token; w is the router's gate. */
export type Gating =
  /** x + w z (the paper's default). */
  | "weighted"
  /** x + z. */
  | "additive"
  /** z: the recursive baseline's rule. */
  | "replace"
  /** x + w (z - x). */
  | "delta";

/** What turns a router's logit into a gate: w = alpha * function(logit). */
export type RouterFunction = "sigmoid" | "tanh" | "softmax" | "none";

/** Fixed repetition of one block of layers. */
export interface RecursionConfig {
  readonly sharing: Sharing;
  readonly numRecursions: number;
  readonly blockLayers: number;
}

/** Expert choice: each recursion step keeps its k_r best tokens of a sequence. */
export interface ExpertChoiceConfig {
  readonly kind: "expert_choice";
  /** Kept fraction per step; null means (N-r+1)/N exactly. */
  readonly capacities: readonly number[] | null;
  readonly function: Exclude<RouterFunction, "softmax">;
  readonly alpha: number;
  readonly temperature: number;
  readonly gating: Gating;
  readonly architecture: "linear" | "mlp";
  readonly auxiliary: "loss" | "router" | "none";
  readonly auxiliaryCoefficient: number;
  readonly zCoefficient: number;
  /** Control experiment: scores are drawn at random and nothing is learned about routing. */
  readonly random: boolean;
}

/** Token choice: one router gives each token its depth before the first step. */
export interface TokenChoiceConfig {
  readonly kind: "token_choice";
  readonly function: "softmax" | "sigmoid";
  readonly alpha: number;
  readonly temperature: number;
  readonly gating: Gating;
  readonly architecture: "linear" | "mlp";
  readonly balancing: "loss" | "loss_free" | "none";
  readonly balancingCoefficient: number;
  readonly biasUpdateRate: number;
  readonly zCoefficient: number;
  readonly random: boolean;
}

export type RouterConfig = ExpertChoiceConfig | TokenChoiceConfig;

/**
 * How a model that was trained on shorter texts turns queries and keys at later positions. Each kind divides the
 * frequencies theta^(-2i / D), see rope_scaling.ts.
 */
export type RopeScaling =
  | LinearRopeScaling
  | Llama3RopeScaling
  | YarnRopeScaling
  | FactorsRopeScaling;

/** Every frequency is divided by one factor. */
export interface LinearRopeScaling {
  readonly kind: "linear";
  readonly factor: number;
}

/**
 * Frequencies of fewer than `lowFreqFactor` turns in the original positions are divided by `factor`, those of more than
 * `highFreqFactor` stay.
 */
export interface Llama3RopeScaling {
  readonly kind: "llama3";
  readonly factor: number;
  readonly lowFreqFactor: number;
  readonly highFreqFactor: number;
  readonly originalMaxPositionEmbeddings: number;
}

/** YaRN (Peng et al. 2023, arXiv 2309.00071): a ramp between frequencies of `betaSlow` and of `betaFast` turns. */
export interface YarnRopeScaling {
  readonly kind: "yarn";
  readonly factor: number;
  readonly originalMaxPositionEmbeddings: number;
  readonly betaFast: number;
  readonly betaSlow: number;
  /** Whether the ramp starts and ends at whole frequencies. */
  readonly truncate: boolean;
  /** Multiplies rotated queries and keys. */
  readonly attentionFactor: number;
}

/** A divisor for each frequency, D / 2 of them: how GGUF files say it. Hugging Face's library has no such kind. */
export interface FactorsRopeScaling {
  readonly kind: "factors";
  readonly factors: readonly number[];
}

/** Shapes and semantics of a model; everything that a checkpoint's weights depend on. */
export interface ModelConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numAttentionHeads: number;
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  /** Unrolled layers, the recursion's repetitions counted. */
  readonly numHiddenLayers: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  /** Null: the frequencies stay. */
  readonly ropeScaling: RopeScaling | null;
  readonly maxPositionEmbeddings: number;
  readonly tieWordEmbeddings: boolean;
  readonly initializerRange: number;
  /** Null: a vanilla Transformer. */
  readonly recursion: RecursionConfig | null;
  /** Null with `recursion` set: the recursive baseline (every token, every step). */
  readonly router: RouterConfig | null;
  readonly kvCache: "recursion_wise" | "shared";
  /** "byte" for the built-in byte tokenizer; null when the checkpoint brings none. */
  readonly tokenizer: "byte" | null;
  /** Fields of the file that this program does not interpret; written back unchanged. */
  readonly extra: Readonly<Record<string, unknown>>;
}

/** A configuration, checkpoint or option set that cannot be used; the message says what, met, wanted and what to do. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";

  /** The message becomes one line: it may quote a damaged file. */
  constructor(message: string, options?: ErrorOptions) {
    super(oneLine(message, { most: MAX_MESSAGE }), options);
  }
}

/** Whether the first and the last layer have weights of their own (the `middle_` strategies). */
export function hasUnsharedEnds(recursion: RecursionConfig): boolean {
  return recursion.sharing.startsWith("middle_");
}

/** Number of layers with weights of their own. */
export function numUniqueLayers({ recursion, numHiddenLayers }: ModelConfig): number {
  return recursion ? recursion.blockLayers + (hasUnsharedEnds(recursion) ? 2 : 0) : numHiddenLayers;
}

/**
 * Tokens kept of a sequence at each recursion step: k_r = max(1, floor(c_r * T)), non-increasing.
 * With `capacities: null` in exact integers, k_r = max(1, floor((N-r+1) T / N)).
 *
 * @param warmup Moves every c_r this part of the way to 1, see `capacityWarmup`.
 */
export function keptTokens(router: ExpertChoiceConfig, { numRecursions, tokens, warmup = 0 }: {
  numRecursions: number;
  tokens: number;
  warmup?: number;
}): number[] {
  return Array.from({ length: numRecursions }, (_, r) => {
    if (warmup > 0) {
      const capacity = router.capacities?.[r] ?? (numRecursions - r) / numRecursions;
      return Math.max(1, Math.floor((capacity + (1 - capacity) * warmup) * tokens));
    }
    const kept = router.capacities
      ? Math.floor(router.capacities[r]! * tokens)
      : Math.floor(((numRecursions - r) * tokens) / numRecursions);
    return Math.max(1, kept);
  });
}

/**
 * Fraction of the tokens that takes part in each recursion step: the capacities of expert choice; for token choice those
 * of perfect balance, (N-r+1)/N; 1 without a router. Empty for a model without recursion.
 */
export function stepFractions({ recursion, router }: Pick<ModelConfig, "recursion" | "router">): number[] {
  if (!recursion) return [];
  const { numRecursions } = recursion;
  const given = router?.kind === "expert_choice" ? router.capacities : null;
  return Array.from({ length: numRecursions }, (_, r) => {
    return router ? given?.[r] ?? (numRecursions - r) / numRecursions : 1;
  });
}

/**
 * Capacity warm-up at an update t, from 0: c_eff = c + (1 - c) w with w = (1 + cos(pi min(1, t / steps))) / 2, so that
 * the first steps of a run keep every token. No warm-up (`steps` 0) is w = 0.
 */
export function capacityWarmup(t: number, { steps }: { steps: number }): number {
  return t >= steps ? 0 : (1 + Math.cos((Math.PI * t) / steps)) / 2;
}
