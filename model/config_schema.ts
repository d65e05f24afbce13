/** The fields of config.json: types, defaults and bounds. */
import { z } from "zod";

/**
 * Far above any published model, and so low that a count of weights is an exact number and a table of them is soon
 * made, whatever a damaged file says.
 */
export const LIMITS = { width: 2 ** 18, layers: 2 ** 12, vocabulary: 2 ** 24, positions: 2 ** 24 } as const;

const width = z.int().positive().max(LIMITS.width);
const layers = z.int().positive().max(LIMITS.layers);
export const positions = z.int().positive().max(LIMITS.positions);
/** At 1 every frequency would be the same; the largest in use are some 1e9. */
export const theta = z.number().gt(1).max(1e15);
const coefficient = z.number().min(0);

const recursion = z.strictObject({
  sharing: z.enum(["cycle", "middle_cycle", "sequence", "middle_sequence"]),
  num_recursions: layers,
  block_layers: layers,
});

const gating = z.enum(["weighted", "additive", "replace", "delta"]);
const architecture = z.enum(["linear", "mlp"]);

const expertChoice = z.strictObject({
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

const tokenChoice = z.strictObject({
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

/** A record whose fields depend on its kind, see rope_config.ts. */
const rope = z.record(z.string(), z.unknown()).nullish();

/** Fields that a ModelConfig has under names of its own. */
export const modelFields = {
  vocab_size: z.int().positive().max(LIMITS.vocabulary),
  hidden_size: width,
  intermediate_size: width,
  num_attention_heads: width,
  num_key_value_heads: width.nullish(),
  head_dim: width.nullish(),
  num_hidden_layers: layers,
  rms_norm_eps: z.number().positive().max(1).default(1e-6),
  rope_theta: theta.nullable().default(null),
  rope_scaling: rope,
  rope_parameters: rope,
  max_position_embeddings: positions.default(2048),
  tie_word_embeddings: z.boolean().default(false),
  initializer_range: z.number().positive().default(0.02),
  recursion: recursion.nullable().default(null),
  router: z.discriminatedUnion("kind", [expertChoice, tokenChoice]).nullable().default(null),
  kv_cache: z.enum(["recursion_wise", "shared"]).default("recursion_wise"),
  tokenizer: z.literal("byte").nullable().default(null),
} as const;

const tokenId = z.int();

/** Fields that are checked and kept as they are. */
const keptFields = {
  model_type: z.enum(["llama", "mor_llama", "mistral"]).nullish(),
  architectures: z.array(z.string()).nullish(),
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)], { error: "expected a token id or a list of them" })
    .nullish(),
  pad_token_id: tokenId.nullish(),
  sliding_window: z.int().positive().nullish(),
  original_max_position_embeddings: positions.nullish(),
  quantization_config: z.record(z.string(), z.unknown()).nullish(),
} as const;

export const modelSchema = z.looseObject({ ...modelFields, ...keptFields });

/** A file that `modelSchema` accepts, with its defaults. */
export type ModelFields = z.infer<typeof modelSchema>;

/** Ends with an error about the file that is read. */
export type Fail = (text: string) => never;

/** What is wrong first, naming the field by its path, which may lie in a field `parent` of the file. */
export function firstIssue(
  error: z.ZodError,
  { json, parent }: { json: unknown; parent?: string },
): string {
  const issue = error.issues[0]!;
  const pathOf = (...rest: PropertyKey[]): string =>
    [parent, ...rest].filter((key) => key !== undefined).join(".");
  if (issue.code === "unrecognized_keys") {
    return `unknown field "${pathOf(...issue.path, issue.keys[0]!)}"; remove it or correct its name`;
  }
  const path = pathOf(...issue.path);
  if (path === "") return issue.message;
  const met = issue.path.reduce((value, key) => (value as Record<PropertyKey, unknown>)[key], json);
  const isShown = typeof met !== "object" && met !== undefined;
  return `field "${path}": ${issue.message}${isShown ? `, met ${brief(met)}` : ""}`;
}

/** A value in a message: the start of its text, if it has one. */
export function brief(value: unknown): string {
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}
