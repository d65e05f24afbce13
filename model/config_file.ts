/**
 * config.json: the one place where it is read, checked and written.
 *
 * In TypeScript the fields are camelCase, in JSON snake_case with Hugging Face's names; the mapping is one to one.
 */
import { z } from "zod";
import { ConfigError, hasUnsharedEnds, type ModelConfig, type RecursionConfig } from "./config.ts";

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
  checkNeutral(config, source);
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

/** Fields of a Hugging Face Llama config that change the computation, with the only value that this program has. */
const NEUTRAL: Readonly<Record<string, unknown>> = {
  rope_scaling: null,
  attention_bias: false,
  mlp_bias: false,
  hidden_act: "silu",
};

function checkNeutral({ extra }: ModelConfig, source: string): void {
  for (const [name, wanted] of Object.entries(NEUTRAL)) {
    const met = extra[name] ?? wanted;
    if (met !== wanted) {
      throw new ConfigError(
        `Cannot use config ${source}: ${name} is ${JSON.stringify(met)}, this version has ${
          JSON.stringify(wanted)
        } only`,
      );
    }
  }
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
  const problem = config.kvCache === "shared" ? sharedKeysProblem(config) : null;
  if (problem) fail(problem);
  if (!router) return;
  if (recursion.sharing !== "cycle" && recursion.sharing !== "middle_cycle") {
    fail(`sharing ${recursion.sharing} cannot have a router; use cycle or middle_cycle`);
  }
  if (router.kind === "expert_choice" && router.capacities) {
    checkCapacities(router.capacities, recursion, fail);
  }
}

/**
 * Why a recursive model cannot run with kv_cache shared; null if it can. Shared keys and values come from the first step,
 * which every token must run with the whole block.
 */
export function sharedKeysProblem({ recursion, router }: ModelConfig): string | null {
  const { sharing } = recursion!;
  if (!sharing.endsWith("cycle")) {
    return `kv_cache shared needs sharing cycle or middle_cycle, met ${sharing}; use kv_cache recursion_wise`;
  }
  const first = router?.kind === "expert_choice" ? router.capacities?.[0] ?? 1 : 1;
  return first < 1
    ? `kv_cache shared needs every token in the first step, but router.capacities starts with ${first}`
    : null;
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
