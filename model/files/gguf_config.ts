/** The metadata of a GGUF file as a model configuration. */
import { z } from "zod";
import { ConfigError, type ModelConfig } from "../config.ts";
import { parseModelConfig } from "../config_file.ts";
import { firstIssue } from "../config_schema.ts";
import type { GgufFile } from "./gguf_file.ts";
import { misspelledName } from "./misspelled_name.ts";

const count = z.int().positive();
const f32 = z.number().transform(shortest);

const metadataSchema = z.object({
  "llama.block_count": count,
  "llama.context_length": count,
  "llama.embedding_length": count,
  "llama.feed_forward_length": count,
  "llama.expert_count": z.literal(0).optional(),
  "llama.attention.head_count": count,
  "llama.attention.head_count_kv": count.optional(),
  "llama.attention.key_length": count.optional(),
  "llama.attention.value_length": count.optional(),
  "llama.attention.layer_norm_rms_epsilon": f32,
  /** Of norms that a Llama model does not have. */
  "llama.attention.layer_norm_epsilon": z.number().optional(),
  "llama.attention.causal": z.literal(true).optional(),
  "llama.rope.dimension_count": count.optional(),
  "llama.rope.freq_base": f32.optional(),
  "llama.rope.scaling.type": z.enum(["none", "linear", "yarn"]).default("linear"),
  "llama.rope.scaling.factor": f32.optional(),
  /** What files of 2023 call that factor. */
  "llama.rope.scale_linear": f32.optional(),
  "llama.rope.scaling.original_context_length": count.optional(),
  /** Changes nothing. */
  "llama.rope.scaling.finetuned": z.boolean().optional(),
  "llama.rope.scaling.attn_factor": f32.optional(),
  "llama.rope.scaling.yarn_beta_fast": f32.optional(),
  "llama.rope.scaling.yarn_beta_slow": f32.optional(),
  "llama.rope.scaling.yarn_ext_factor": z.literal(1).optional(),
  "llama.rope.scaling.yarn_attn_factor": z.literal(1).optional(),
  "tokenizer.ggml.bos_token_id": z.int().optional(),
  "tokenizer.ggml.eos_token_id": z.int().optional(),
});

/** The key of a token that plays a part in texts. */
const OTHER_TOKEN = /^tokenizer\.ggml\.[a-z]{3}_token_id$/;

/** Keys of these groups say how the model computes. */
const COMPUTATION = /^llama\.(attention|rope)\./;

type Metadata = z.infer<typeof metadataSchema>;
type Fail = (text: string) => never;

/**
 * The configuration of a Llama model in a GGUF file; defaults are llama.cpp's.
 *
 * @throws ConfigError for missing, ill-typed or absurd metadata, and for a model that computes something else than this
 * program.
 */
export function ggufModelConfig(
  { path, metadata, entries, ropeFactors }: Pick<GgufFile, "path" | "metadata" | "entries" | "ropeFactors">,
): ModelConfig {
  function fail(text: string): never {
    throw new ConfigError(`Cannot use the metadata of ${path}: ${text}`);
  }
  const parsed = metadataSchema.safeParse(metadata);
  if (!parsed.success) fail(firstIssue(parsed.error, { json: metadata }));
  const unknown = Object.keys(metadata).find((key) =>
    COMPUTATION.test(key) && !Object.hasOwn(metadataSchema.shape, key)
  );
  if (unknown !== undefined) fail(`it has "${unknown}", which this program does not know`);
  const known = Object.keys(metadataSchema.shape);
  // There are tokens besides those that count here.
  const names = Object.keys(metadata).filter((name) => known.includes(name) || !OTHER_TOKEN.test(name));
  const found = misspelledName(names, known);
  if (found) fail(`it has the unknown key ${found.name}, but no ${found.meant}`);
  const { data } = parsed;
  const { "tokenizer.ggml.bos_token_id": bos, "tokenizer.ggml.eos_token_id": eos } = data;
  const heads = data["llama.attention.head_count"];
  const headDim = data["llama.attention.key_length"] ?? data["llama.embedding_length"] / heads;
  for (const key of ["llama.attention.value_length", "llama.rope.dimension_count"] as const) {
    const met = data[key] ?? headDim;
    if (met !== headDim) fail(`${key} is ${met}, this program needs the length of a head's keys, ${headDim}`);
  }
  return parseModelConfig({
    model_type: "llama",
    vocab_size: entries.get("model.embed_tokens.weight")?.shape[0],
    hidden_size: data["llama.embedding_length"],
    intermediate_size: data["llama.feed_forward_length"],
    num_hidden_layers: data["llama.block_count"],
    num_attention_heads: heads,
    num_key_value_heads: data["llama.attention.head_count_kv"],
    head_dim: data["llama.attention.key_length"],
    rms_norm_eps: data["llama.attention.layer_norm_rms_epsilon"],
    rope_theta: data["llama.rope.freq_base"],
    rope_scaling: ropeScaling(data, { ropeFactors, fail }),
    max_position_embeddings: data["llama.context_length"],
    tie_word_embeddings: !entries.has("lm_head.weight"),
    ...(bos !== undefined && { bos_token_id: bos }),
    ...(eos !== undefined && { eos_token_id: eos }),
  }, { source: path });
}

/** In Hugging Face's form; null for none. */
function ropeScaling(
  data: Metadata,
  { ropeFactors, fail }: { ropeFactors: Float32Array | null; fail: Fail },
): Record<string, unknown> | null {
  const type = data["llama.rope.scaling.type"];
  const factor = (data["llama.rope.scaling.factor"] ?? data["llama.rope.scale_linear"]) || 1;
  const attention = data["llama.rope.scaling.attn_factor"] ?? 1;
  const isScaled = type !== "none" && factor !== 1;
  const isYarn = isScaled && type === "yarn";
  if (attention !== 1 && !isYarn) {
    fail(`it has a llama.rope.scaling.attn_factor, which is for yarn, without yarn`);
  }
  if (ropeFactors) {
    if (isScaled) fail(`it has both rope_freqs.weight and llama.rope.scaling.factor ${factor}`);
    return { rope_type: "factors", factors: Array.from(ropeFactors, shortest) };
  }
  if (!isScaled) return null;
  if (!isYarn) return { rope_type: "linear", factor };
  return {
    rope_type: "yarn",
    factor,
    original_max_position_embeddings: data["llama.rope.scaling.original_context_length"] ?? null,
    beta_fast: data["llama.rope.scaling.yarn_beta_fast"] ?? null,
    beta_slow: data["llama.rope.scaling.yarn_beta_slow"] ?? null,
    // llama.cpp multiplies this factor with YaRN's own, Hugging Face puts it in the place of that.
    attention_factor: attention === 1 ? null : attention * (0.1 * Math.log(factor) + 1),
  };
}

/** Of the numbers that round to the same f32 the one with the fewest digits: 1e-5 rather than 9.999999747378752e-6. */
function shortest(x: number): number {
  const digits = [1, 2, 3, 4, 5, 6, 7, 8, 9].find((n) => Math.fround(Number(x.toPrecision(n))) === x);
  return digits === undefined ? x : Number(x.toPrecision(digits));
}
