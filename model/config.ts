/**
 * Model configuration: the one place where a `config.json` is read and checked.
 *
 * In TypeScript the fields are camelCase, in JSON snake_case with Hugging Face's names; the mapping is one to one.
 */
import { z } from "zod";

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
}

const size = z.int().positive();
const coefficient = z.number().min(0);

const recursionSchema = z.strictObject({
  sharing: z.enum(["cycle", "middle_cycle", "sequence", "middle_sequence"]),
  num_recursions: size,
  block_layers: size,
});

const gating = z.enum(["weighted", "additive", "replace", "delta"]);
const architecture = z.enum(["linear", "mlp"]);

const expertChoiceSchema = z.strictObject({
  kind: z.literal("expert_choice"),
  capacities: z.array(z.number().positive().max(1)).nullable().default(null),
  function: z.enum(["sigmoid", "tanh", "none"]).default("sigmoid"),
  alpha: z.number().positive().default(0.1),
  temperature: z.number().positive().default(1),
  gating: gating.default("weighted"),
  architecture: architecture.default("linear"),
  auxiliary: z.enum(["loss", "router", "none"]).default("loss"),
  auxiliary_coefficient: coefficient.default(0.001),
  z_coefficient: coefficient.default(0),
  random: z.boolean().default(false),
});

const tokenChoiceSchema = z.strictObject({
  kind: z.literal("token_choice"),
  function: z.enum(["softmax", "sigmoid"]).default("softmax"),
  alpha: z.number().positive().default(1),
  temperature: z.number().positive().default(1),
  gating: gating.default("weighted"),
  architecture: architecture.default("linear"),
  balancing: z.enum(["loss", "loss_free", "none"]).default("loss"),
  balancing_coefficient: coefficient.default(0.1),
  bias_update_rate: coefficient.default(0.001),
  z_coefficient: coefficient.default(1e-5),
  random: z.boolean().default(false),
});

const modelSchema = z.looseObject({
  vocab_size: size,
  hidden_size: size,
  intermediate_size: size,
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  num_hidden_layers: size,
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().default(10000),
  max_position_embeddings: size.default(2048),
  tie_word_embeddings: z.boolean().default(false),
  initializer_range: z.number().positive().default(0.02),
  recursion: recursionSchema.nullable().default(null),
  router: z.discriminatedUnion("kind", [expertChoiceSchema, tokenChoiceSchema]).nullable().default(null),
  kv_cache: z.enum(["recursion_wise", "shared"]).default("recursion_wise"),
  tokenizer: z.literal("byte").nullable().default(null),
});

type Json<T> = { [K in keyof T]: unknown };

/** `{ numKeyValueHeads: 3 }` as `{ num_key_value_heads: 3 }`, one level deep. */
function toSnakeCase(record: Json<object>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(record).map((
      [key, value],
    ) => [key.replace(/[A-Z]/g, (c) => "_" + c.toLowerCase()), value]),
  );
}

function toCamelCase(record: Json<object>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(record).map((
      [key, value],
    ) => [key.replace(/_([a-z])/g, (_, c) => c.toUpperCase()), value]),
  );
}

/** One line for the first thing wrong with a file, naming the field by its path. */
function firstIssue(error: z.ZodError): string {
  const issue = error.issues[0]!;
  const path = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    return `unknown field "${
      [path, issue.keys[0]].filter(Boolean).join(".")
    }"; remove it or correct its name`;
  }
  return path === "" ? issue.message : `field "${path}": ${issue.message}`;
}

/**
 * Checks a parsed `config.json` and gives it types.
 *
 * @throws ConfigError for a missing or ill-typed field, an unknown field inside `recursion` or `router`, or sizes that
 * do not fit each other.
 */
export function parseModelConfig(json: unknown, { source }: { source: string }): ModelConfig {
  const parsed = modelSchema.safeParse(json);
  if (!parsed.success) throw new ConfigError(`Cannot use config ${source}: ${firstIssue(parsed.error)}`);
  const known = new Set(Object.keys(modelSchema.shape));
  const { recursion, router, ...rest } = parsed.data;
  const entries = Object.entries(rest);
  const fields = toCamelCase(Object.fromEntries(entries.filter(([key]) => known.has(key))));
  const config = {
    ...fields,
    numKeyValueHeads: rest.num_key_value_heads ?? rest.num_attention_heads,
    headDim: rest.head_dim ?? rest.hidden_size / rest.num_attention_heads,
    recursion: recursion && toCamelCase(recursion),
    router: router && toCamelCase(router),
    extra: Object.fromEntries(entries.filter(([key]) => !known.has(key) && key !== "model_type")),
  } as unknown as ModelConfig;
  checkSizes(config, source);
  return config;
}

/** The inverse of `parseModelConfig`. */
export function modelConfigToJson(config: ModelConfig): Record<string, unknown> {
  const { extra, recursion, router, tokenizer, ...fields } = config;
  return {
    model_type: recursion ? "mor_llama" : "llama",
    ...toSnakeCase(fields),
    recursion: recursion && toSnakeCase(recursion),
    router: router && toSnakeCase(router),
    ...(tokenizer && { tokenizer }),
    ...extra,
  };
}

function checkSizes(config: ModelConfig, source: string): void {
  const { hiddenSize, intermediateSize, numAttentionHeads, numKeyValueHeads, headDim, recursion, router } =
    config;
  function fail(text: string): never {
    throw new ConfigError(`Cannot use config ${source}: ${text}`);
  }
  if (!Number.isInteger(headDim)) {
    fail(
      `hidden_size ${hiddenSize} is not a multiple of num_attention_heads ${numAttentionHeads}; set head_dim`,
    );
  }
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    fail(
      `num_attention_heads ${numAttentionHeads} is not a multiple of num_key_value_heads ${numKeyValueHeads}`,
    );
  }
  // The kernels read four numbers at a time; head_dim is also halved by RoPE.
  for (const [name, value] of Object.entries({ hiddenSize, intermediateSize, headDim })) {
    if (value % 4 !== 0) {
      fail(`${Object.keys(toSnakeCase({ [name]: 0 }))[0]} is ${value}, must be a multiple of 4`);
    }
  }
  if (!recursion) {
    if (router) fail("a router needs a recursion; set recursion or set router to null");
    return;
  }
  const ends = hasUnsharedEnds(recursion) ? 2 : 0;
  const unrolled = recursion.numRecursions * recursion.blockLayers + ends;
  if (config.numHiddenLayers !== unrolled) {
    fail(
      `num_hidden_layers is ${config.numHiddenLayers}, but ${recursion.sharing} with ${recursion.numRecursions} ` +
        `recursions of ${recursion.blockLayers} layers unrolls to ${unrolled}`,
    );
  }
  if (!router) return;
  if (recursion.sharing !== "cycle" && recursion.sharing !== "middle_cycle") {
    fail(`sharing ${recursion.sharing} cannot have a router; use cycle or middle_cycle`);
  }
  if (router.kind === "expert_choice" && router.capacities) {
    checkCapacities(router.capacities, recursion, fail);
  }
}

function checkCapacities(
  capacities: readonly number[],
  { numRecursions }: RecursionConfig,
  fail: (text: string) => never,
): void {
  if (capacities.length !== numRecursions) {
    fail(
      `router.capacities has ${capacities.length} entries, wanted one for each of ${numRecursions} recursions`,
    );
  }
  if (capacities.some((value, r) => r > 0 && value > capacities[r - 1]!)) {
    fail(`router.capacities [${capacities}] must not increase from step to step`);
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
 * Tokens kept per sequence at each recursion step: k_r = max(1, floor(c_r * T)), non-increasing.
 * With `capacities: null` in exact integers, k_r = max(1, floor((N-r+1) T / N)).
 */
export function keptTokens(router: ExpertChoiceConfig, { numRecursions, tokens }: {
  numRecursions: number;
  tokens: number;
}): number[] {
  return Array.from({ length: numRecursions }, (_, r) => {
    const kept = router.capacities
      ? Math.floor(router.capacities[r]! * tokens)
      : Math.floor(((numRecursions - r) * tokens) / numRecursions);
    return Math.max(1, kept);
  });
}
