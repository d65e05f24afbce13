import { fromFileUrl } from "@std/path";
import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError, type ModelConfig } from "../../../model/config.ts";
import { ggufModelConfig } from "../../../model/files/gguf_config.ts";
import { type GgufFile, openGguf } from "../../../model/files/gguf_file.ts";
import { readWeight } from "../../../model/files/weight_file.ts";

const tiny = fromFileUrl(new URL("../../../fixtures/gguf/tiny.gguf", import.meta.url));

/** What every model of these tests has. */
const common: Partial<ModelConfig> = {
  recursion: null,
  router: null,
  kvCache: "recursion_wise",
  initializerRange: 0.02,
  tokenizer: null,
};

/** The metadata that SmolLM2-135M-Instruct has for its computation. */
const smolLm2: GgufFile["metadata"] = {
  "general.architecture": "llama",
  "llama.block_count": 30,
  "llama.context_length": 8192,
  "llama.embedding_length": 576,
  "llama.feed_forward_length": 1536,
  "llama.attention.head_count": 9,
  "llama.attention.head_count_kv": 3,
  "llama.attention.layer_norm_rms_epsilon": Math.fround(1e-5),
  "llama.rope.dimension_count": 64,
  "llama.rope.freq_base": 100000,
  "llama.vocab_size": 49152,
};

const smolLm2Config: ModelConfig = {
  ...common as ModelConfig,
  vocabSize: 49152,
  hiddenSize: 576,
  intermediateSize: 1536,
  numAttentionHeads: 9,
  numKeyValueHeads: 3,
  headDim: 64,
  numHiddenLayers: 30,
  rmsNormEps: 1e-5,
  ropeTheta: 100000,
  ropeScaling: null,
  maxPositionEmbeddings: 8192,
  tieWordEmbeddings: true,
  extra: {},
};

/** The configuration of SmolLM2 with other metadata; null takes a value away. */
function configOf(
  changes: Record<string, string | number | boolean | number[] | null>,
  { tensors = ["model.embed_tokens.weight"], ropeFactors = null }: {
    tensors?: string[];
    ropeFactors?: Float32Array<ArrayBuffer> | null;
  } = {},
): ModelConfig {
  const values = Object.entries({ ...smolLm2, ...changes }).filter(([, value]) => value !== null);
  return ggufModelConfig({
    path: "model.gguf",
    metadata: Object.fromEntries(values) as GgufFile["metadata"],
    entries: new Map(tensors.map((name) => [name, { shape: [49152, 576], format: "f32" }])),
    ropeFactors,
  });
}

Deno.test("ggufModelConfig reads a file with heads of their own length and rotary factors", async () => {
  using file = await openGguf(tiny);
  assertEquals(ggufModelConfig(file), {
    ...common as ModelConfig,
    vocabSize: 8,
    hiddenSize: 256,
    intermediateSize: 4,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    headDim: 4,
    numHiddenLayers: 1,
    rmsNormEps: 1e-5,
    ropeTheta: 500000,
    ropeScaling: { kind: "factors", factors: [1, 8] },
    maxPositionEmbeddings: 64,
    tieWordEmbeddings: true,
    extra: { bos_token_id: 1, eos_token_id: 2 },
  });
});

Deno.test("ggufModelConfig reads SmolLM2's metadata", () => {
  assertEquals(configOf({}), smolLm2Config);
  // Besides the two tokens that are named, others may be.
  const { eos_token_id: _, ...extra } = smolLm2Config.extra;
  const tokens = { "tokenizer.ggml.eos_token_id": null, "tokenizer.ggml.eot_token_id": 2 };
  assertEquals(configOf(tokens), { ...smolLm2Config, extra });
});

Deno.test("ggufModelConfig takes llama.cpp's defaults", () => {
  const config = configOf({
    "llama.attention.head_count_kv": null,
    "llama.rope.freq_base": null,
    "llama.rope.dimension_count": null,
  });
  assertEquals(config, { ...smolLm2Config, numKeyValueHeads: 9, ropeTheta: 10000 });
});

Deno.test("ggufModelConfig sees a head of its own", () => {
  const config = configOf({}, { tensors: ["model.embed_tokens.weight", "lm_head.weight"] });
  assertEquals(config, { ...smolLm2Config, tieWordEmbeddings: false });
});

const yarn = {
  "llama.rope.scaling.type": "yarn",
  "llama.rope.scaling.factor": 4,
  "llama.rope.scaling.original_context_length": 2048,
};

Deno.test("ggufModelConfig reads the ways to scale rotations", () => {
  const linear = { kind: "linear", factor: 4 } as const;
  const yarnScaling = {
    kind: "yarn",
    factor: 4,
    originalMaxPositionEmbeddings: 2048,
    betaFast: 32,
    betaSlow: 1,
    truncate: true,
    attentionFactor: 0.1 * Math.log(4) + 1,
  } as const;
  const cases: [changes: Parameters<typeof configOf>[0], wanted: ModelConfig["ropeScaling"]][] = [
    [{ "llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4 }, null],
    [{ "llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4 }, linear],
    [{ "llama.rope.scaling.factor": 4 }, linear],
    [{ "llama.rope.scaling.factor": Math.fround(1.2) }, { kind: "linear", factor: 1.2 }],
    [{ "llama.rope.scale_linear": 4 }, linear],
    [{ "llama.rope.scale_linear": 1 }, null],
    [{ "llama.rope.scaling.factor": 0 }, null],
    [{ ...yarn, "llama.rope.scaling.factor": 1 }, null],
    [{ ...yarn, "llama.rope.scaling.finetuned": true }, yarnScaling],
    [
      { ...yarn, "llama.rope.scaling.yarn_beta_fast": 16, "llama.rope.scaling.yarn_beta_slow": 2 },
      { ...yarnScaling, betaFast: 16, betaSlow: 2 },
    ],
    [
      { ...yarn, "llama.rope.scaling.attn_factor": 0.5 },
      { ...yarnScaling, attentionFactor: 0.5 * (0.1 * Math.log(4) + 1) },
    ],
  ];
  for (const [changes, ropeScaling] of cases) {
    assertEquals(configOf(changes), { ...smolLm2Config, ropeScaling }, JSON.stringify(changes));
  }
});

const factors = new Float32Array(32).fill(2);

/** Metadata that cannot be used, and the message after the path. */
const refused: [changes: Parameters<typeof configOf>, message: string][] = [
  [[{ "llama.block_count": null }], 'field "llama.block_count": Invalid input: expected number'],
  [
    [{ "llama.block_count": "30" }],
    'field "llama.block_count": Invalid input: expected number, received string, met',
  ],
  [[{ "llama.attention.head_count_kv": [3, 3] }], 'field "llama.attention.head_count_kv"'],
  [[{ "llama.attention.head_count": -9 }], 'field "llama.attention.head_count"'],
  [[{ "llama.attention.layer_norm_rms_epsilon": NaN }], 'field "llama.attention.layer_norm_rms_epsilon"'],
  [[{ "llama.expert_count": 8 }], 'field "llama.expert_count": Invalid input: expected 0, met 8'],
  [[{ "llama.attention.causal": false }], 'field "llama.attention.causal"'],
  [
    [{ "llama.attention.sliding_window": 4096 }],
    'it has "llama.attention.sliding_window", which this program does not know',
  ],
  [[{ "llama.rope.dimension_count": 32 }], "llama.rope.dimension_count is 32, this program needs the length"],
  [[{ "llama.attention.value_length": 128 }], "llama.attention.value_length is 128, this program needs"],
  [[{ "llama.rope.scaling.type": "longrope" }], 'field "llama.rope.scaling.type"'],
  [[{ "llama.rope.scaling.attn_factor": 2 }], "it has a llama.rope.scaling.attn_factor, which is for yarn"],
  [[{ ...yarn, "llama.rope.scaling.yarn_ext_factor": 0.5 }], 'field "llama.rope.scaling.yarn_ext_factor"'],
  [
    [{ "llama.rope.scaling.factor": 4 }, { ropeFactors: factors }],
    "it has both rope_freqs.weight and llama.rope.scaling.factor 4",
  ],
];

for (const [args, message] of refused) {
  Deno.test(`ggufModelConfig refuses ${message}`, () => {
    assertThrows(() => configOf(...args), ConfigError, `Cannot use the metadata of model.gguf: ${message}`);
  });
}

Deno.test("ggufModelConfig leaves sizes and factors to the checks that config.json has", () => {
  assertThrows(() => configOf({ "llama.block_count": 1e9 }), ConfigError, "Cannot use config model.gguf: ");
  const heads = { "llama.attention.head_count": 7, "llama.rope.dimension_count": null };
  assertThrows(() => configOf(heads), ConfigError, "Cannot use config model.gguf: hidden_size 576");
  assertThrows(() => configOf({}, { tensors: [] }), ConfigError, 'field "vocab_size"');
  assertThrows(() => configOf({}, { ropeFactors: factors.subarray(1) }), ConfigError, "has 31 entries");
});

const model = Deno.env.get("MOR_TEST_SMOLLM2");

Deno.test({
  name: "SmolLM2's GGUF file holds what PyPI's gguf reads (needs that file's path in MOR_TEST_SMOLLM2)",
  ignore: model === undefined,
  async fn(): Promise<void> {
    using file = await openGguf(model!);
    assertEquals(ggufModelConfig(file), { ...smolLm2Config, extra: { bos_token_id: 1, eos_token_id: 2 } });
    assertEquals(file.entries.size, 272);
    const sums: Record<string, string> = {
      "model.embed_tokens.weight": "3fd491c8066dd9dc1a2bf6796701526c82817d95c0ecabacdef3013c2b8bbbaa",
      "model.layers.0.self_attn.q_proj.weight":
        "54b377bbfa2deab945dfdba7fb59e0ca3eb74329358bd1b53b635b3ff37c1a56",
      "model.layers.15.mlp.down_proj.weight":
        "21fbbb46ff2b699d1c581fdf92b2feb3ab620f273d573de5e03909e105fd4188",
      "model.layers.29.self_attn.k_proj.weight":
        "8e99b2450d5f3d53731f52790cc82f80b04341e533306bcfee6669ffa3c79921",
      "model.norm.weight": "3b87f8e27335e67fc08f159cabfd2d18f205d6c5b225a6f978153552bf01d559",
    };
    for (const [name, sum] of Object.entries(sums)) {
      const values = await readWeight(file, { name, shape: file.entries.get(name)!.shape });
      assertEquals(new Uint8Array(await crypto.subtle.digest("SHA-256", values)).toHex(), sum, name);
    }
  },
});
