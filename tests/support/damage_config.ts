/** Configurations of damaged files, read without the product. */
import type { GgufMetadatum } from "./damage_gguf.ts";

type Fields = Record<string, unknown>;

const DEFAULTS = {
  rms_norm_eps: 1e-6,
  max_position_embeddings: 2048,
  tie_word_embeddings: false,
  initializer_range: 0.02,
  recursion: null,
  router: null,
  kv_cache: "recursion_wise",
  tokenizer: null,
};

const ROUTER_DEFAULTS: Readonly<Record<string, Fields>> = {
  expert_choice: {
    capacities: null,
    function: "sigmoid",
    alpha: 0.1,
    temperature: 1,
    gating: "weighted",
    architecture: "linear",
    auxiliary: "loss",
    auxiliary_coefficient: 0.001,
    z_coefficient: 0,
    random: false,
  },
  token_choice: {
    function: "softmax",
    alpha: 1,
    temperature: 1,
    gating: "weighted",
    architecture: "linear",
    balancing: "loss",
    balancing_coefficient: 0.1,
    bias_update_rate: 0.001,
    z_coefficient: 1e-5,
    random: false,
  },
};

const SIZES = ["vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers"];

/** The ModelConfig that a config.json means, without `extra`. */
export function jsonConfig(json: Fields): Fields {
  const { num_attention_heads: heads, hidden_size: width } = json as Record<string, number>;
  const rope = scalingOf(json.rope_scaling) ?? scalingOf(json.rope_parameters);
  const isNull = ([, value]: [string, unknown]): boolean => value === null;
  const given = Object.fromEntries(Object.entries(json).filter((entry) => !isNull(entry)));
  const router = given.router as Fields | undefined;
  const { rope_theta: base = 10000, ...scaling } = rope ?? {};
  const yarn = {
    original_max_position_embeddings: given.max_position_embeddings ?? DEFAULTS.max_position_embeddings,
    beta_fast: 32,
    beta_slow: 1,
    truncate: true,
    attention_factor: 0.1 * Math.log(scaling.factor as number) + 1,
  };
  return camel({
    ...Object.fromEntries(SIZES.map((name) => [name, json[name]])),
    ...Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, given[name] ?? value])),
    num_key_value_heads: given.num_key_value_heads ?? heads,
    head_dim: given.head_dim ?? width! / heads!,
    rope_theta: given.rope_theta ?? base,
    rope_scaling: (scaling.kind ?? "default") === "default"
      ? null
      : camel({ ...(scaling.kind === "yarn" && yarn), ...scaling }),
    recursion: given.recursion ? camel(given.recursion as Fields) : null,
    router: router ? camel({ ...ROUTER_DEFAULTS[router.kind as string], ...router }) : null,
  });
}

/** A field of RoPE: what it gives, its type as `kind`. */
function scalingOf(field: unknown): Fields | null {
  if (field == null) return null;
  const { type, rope_type, __proto__: ___, ...given } = field as Fields;
  const { partial_rotary_factor: _, finetuned: __, ...rest } = given;
  return Object.fromEntries(
    Object.entries({ kind: rope_type ?? type, ...rest }).filter(([, value]) => value != null),
  );
}

/** The ModelConfig that a GGUF file's metadata mean, without `extra`. */
export function ggufConfig(
  values: ReadonlyMap<string, GgufMetadatum>,
  { vocabSize, isTied, ropeFactors }: {
    vocabSize: number;
    isTied: boolean;
    ropeFactors: readonly number[] | null;
  },
): Fields {
  function read(key: string, { types, otherwise }: { types: readonly number[]; otherwise?: number }): number {
    const met = values.get(`llama.${key}`);
    if (!met && otherwise !== undefined) return otherwise;
    if (!met || !types.includes(met.type)) throw new Error(`${key} has the type ${met?.type}`);
    return met.value as number;
  }
  const count = (key: string, otherwise?: number): number =>
    read(key, { types: [0, 1, 2, 3, 4, 5, 10, 11], ...(otherwise !== undefined && { otherwise }) });
  const real = (key: string, otherwise?: number): number =>
    read(key, { types: [6, 12], ...(otherwise !== undefined && { otherwise }) });
  const [heads, width] = [count("attention.head_count"), count("embedding_length")];
  const headDim = count("attention.key_length", width / heads);
  const factor = real("rope.scaling.factor", 1) || 1;
  return {
    vocabSize,
    hiddenSize: width,
    intermediateSize: count("feed_forward_length"),
    numAttentionHeads: heads,
    numKeyValueHeads: count("attention.head_count_kv", heads),
    headDim,
    numHiddenLayers: count("block_count"),
    rmsNormEps: real("attention.layer_norm_rms_epsilon"),
    ropeTheta: real("rope.freq_base", 10000),
    ropeScaling: ropeFactors
      ? { kind: "factors", factors: ropeFactors }
      : factor === 1
      ? null
      : { kind: "linear", factor },
    maxPositionEmbeddings: count("context_length"),
    tieWordEmbeddings: isTied,
    initializerRange: 0.02,
    recursion: null,
    router: null,
    kvCache: "recursion_wise",
    tokenizer: null,
  };
}

function camel(fields: Fields): Fields {
  return Object.fromEntries(
    Object.entries(fields).map((
      [key, value],
    ) => [key.replace(/_[a-z]/g, ([, c]) => c!.toUpperCase()), value]),
  );
}
