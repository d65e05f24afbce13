import { assertEquals, assertThrows } from "@std/assert";
import {
  ConfigError,
  type ExpertChoiceConfig,
  hasUnsharedEnds,
  keptTokens,
  type ModelConfig,
  numUniqueLayers,
} from "../../model/config.ts";
import { modelConfigToJson, parseModelConfig } from "../../model/config_file.ts";

const source = "folder/config.json";

const recursion = { sharing: "middle_cycle", num_recursions: 3, block_layers: 10 };

/** The 135M model of the paper, with its three recursions. */
const json = {
  model_type: "mor_llama",
  vocab_size: 49152,
  hidden_size: 576,
  intermediate_size: 1536,
  num_attention_heads: 9,
  num_key_value_heads: 3,
  head_dim: 64,
  num_hidden_layers: 32,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_position_embeddings: 2048,
  tie_word_embeddings: true,
  initializer_range: 0.02,
  recursion,
  router: {
    kind: "expert_choice",
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
  kv_cache: "recursion_wise",
};

const tokenChoice = {
  kind: "token_choice",
  function: "softmax",
  alpha: 1,
  temperature: 1,
  gating: "weighted",
  architecture: "linear",
  balancing: "loss_free",
  balancing_coefficient: 0.1,
  bias_update_rate: 0.001,
  z_coefficient: 1e-5,
  random: false,
};

function parse(changes: Record<string, unknown> = {}): ModelConfig {
  return parseModelConfig({ ...json, ...changes }, { source });
}

const accepted: Record<string, Record<string, unknown>> = {
  "expert choice": {},
  "expert choice with capacities": { router: { ...json.router, capacities: [1, 0.5, 0.5] } },
  "token choice": { router: tokenChoice },
  "the recursive baseline": { router: null },
  "a vanilla Transformer": { model_type: "llama", recursion: null, router: null },
  "the byte tokenizer": { tokenizer: "byte" },
  "fields of other programs": { torch_dtype: "float32", "transformers.js_config": {}, eos_token_id: [0, 2] },
};

for (const [name, changes] of Object.entries(accepted)) {
  Deno.test(`a configuration survives the round trip to JSON: ${name}`, () => {
    const written = modelConfigToJson(parse(changes));
    assertEquals(written, { ...json, ...changes });
    assertEquals(parseModelConfig(JSON.parse(JSON.stringify(written)), { source }), parse(changes));
  });
}

Deno.test("parseModelConfig keeps unknown fields apart from its own", () => {
  assertEquals(parse({ torch_dtype: "float32", bos_token_id: 1 }).extra, {
    torch_dtype: "float32",
    bos_token_id: 1,
  });
});

Deno.test("parseModelConfig fills a Hugging Face Llama file's gaps with that library's defaults", () => {
  const llama = {
    vocab_size: 32000,
    hidden_size: 512,
    intermediate_size: 1376,
    num_attention_heads: 8,
    num_hidden_layers: 6,
  };
  const config = parseModelConfig(llama, { source });
  assertEquals(config, {
    vocabSize: 32000,
    hiddenSize: 512,
    intermediateSize: 1376,
    numAttentionHeads: 8,
    numKeyValueHeads: 8,
    headDim: 64,
    numHiddenLayers: 6,
    rmsNormEps: 1e-6,
    ropeTheta: 10000,
    ropeScaling: null,
    maxPositionEmbeddings: 2048,
    tieWordEmbeddings: false,
    initializerRange: 0.02,
    recursion: null,
    router: null,
    kvCache: "recursion_wise",
    tokenizer: null,
    extra: {},
  });
  const nulls = { ...llama, num_key_value_heads: null, head_dim: null };
  assertEquals(parseModelConfig(nulls, { source }), config);
});

Deno.test("a router's fields default to the paper's", () => {
  const { router } = parse({ router: { kind: "expert_choice" } });
  assertEquals(router, parse().router);
  assertEquals(parse({ router: { kind: "token_choice" } }).router, {
    kind: "token_choice",
    function: "softmax",
    alpha: 1,
    temperature: 1,
    gating: "weighted",
    architecture: "linear",
    balancing: "loss",
    balancingCoefficient: 0.1,
    biasUpdateRate: 0.001,
    zCoefficient: 1e-5,
    random: false,
  });
});

const { vocab_size: _, ...withoutVocabulary } = json;
const expertChoice = (changes: Record<string, unknown>): Record<string, unknown> => ({
  ...json,
  router: { ...json.router, ...changes },
});

const refused: readonly (readonly [name: string, json: unknown, message: string])[] = [
  ["what is no object", [], "expected object, received array"],
  ["a missing field", withoutVocabulary, 'field "vocab_size": '],
  ["a field of another type", { ...json, hidden_size: "576" }, 'field "hidden_size": '],
  ["a size that is not positive", { ...json, hidden_size: 0 }, 'field "hidden_size": '],
  ["a size that is not whole", { ...json, intermediate_size: 10.5 }, 'field "intermediate_size": '],
  ["an unknown recursion field", { ...json, recursion: { ...recursion, depth: 3 } }, '"recursion.depth"'],
  ["an unknown router field", expertChoice({ capacity: 0.5 }), 'unknown field "router.capacity"'],
  ["a router field of the other kind", expertChoice({ balancing: "loss" }), '"router.balancing"'],
  ["an unknown kind of router", { ...json, router: { kind: "mixture" } }, 'field "router.kind": '],
  ["an unknown sharing", { ...json, recursion: { ...recursion, sharing: "loop" } }, '"recursion.sharing": '],
  ["token choice's function for expert choice", expertChoice({ function: "softmax" }), '"router.function": '],
  ["a capacity above 1", expertChoice({ capacities: [1, 1.5, 0.5] }), 'field "router.capacities.1": '],
  ["a capacity of 0", expertChoice({ capacities: [1, 0.5, 0] }), 'field "router.capacities.2": '],
  ["a negative coefficient", expertChoice({ auxiliary_coefficient: -1 }), '"router.auxiliary_coefficient": '],
  ["an unknown cache", { ...json, kv_cache: "none" }, 'field "kv_cache": '],
  [
    "a head size that is not whole",
    { ...json, head_dim: undefined, hidden_size: 580 },
    "hidden_size 580 is not a multiple of num_attention_heads 9; set head_dim",
  ],
  [
    "heads that do not share keys evenly",
    { ...json, num_key_value_heads: 2 },
    "num_attention_heads 9 is not a multiple of num_key_value_heads 2",
  ],
  [
    "a hidden size for other vectors",
    { ...json, hidden_size: 578 },
    "hidden_size is 578, must be a multiple of 4",
  ],
  [
    "an intermediate size for other vectors",
    { ...json, intermediate_size: 1537 },
    "intermediate_size is 1537",
  ],
  ["a head size for other vectors", { ...json, head_dim: 6 }, "head_dim is 6, must be a multiple of 4"],
  [
    "another number of unrolled layers",
    { ...json, num_hidden_layers: 30 },
    "num_hidden_layers is 30, but middle_cycle with 3 recursions of 10 layers unrolls to 32",
  ],
  [
    "another number of layers in a cycle",
    { ...json, recursion: { ...recursion, sharing: "cycle" } },
    "num_hidden_layers is 32, but cycle with 3 recursions of 10 layers unrolls to 30",
  ],
  ["a router without recursion", { ...json, recursion: null }, "a router needs a recursion"],
  [
    "a router with a sharing that has no contiguous block",
    { ...json, recursion: { ...recursion, sharing: "middle_sequence" } },
    "sharing middle_sequence cannot have a router; use cycle or middle_cycle",
  ],
  [
    "shared keys and values of a sharing whose steps are not the same layers",
    { ...json, kv_cache: "shared", router: null, recursion: { ...recursion, sharing: "middle_sequence" } },
    "kv_cache shared needs sharing cycle or middle_cycle, met middle_sequence; use kv_cache recursion_wise",
  ],
  [
    "shared keys and values that not every token has",
    { ...expertChoice({ capacities: [0.9, 0.5, 0.1] }), kv_cache: "shared" },
    "kv_cache shared needs every token in the first step, but router.capacities starts with 0.9",
  ],
  [
    "another number of capacities",
    expertChoice({ capacities: [1, 0.5] }),
    "router.capacities has 2 entries, wanted one for each of 3 recursions",
  ],
  [
    "increasing capacities",
    expertChoice({ capacities: [0.5, 0.6, 0.1] }),
    "router.capacities [0.5,0.6,0.1] must not increase",
  ],
  [
    "biased projections",
    { ...json, attention_bias: true },
    "attention_bias is true, this version has false only",
  ],
  [
    "another activation",
    { ...json, hidden_act: "gelu" },
    'hidden_act is "gelu", this version has "silu" only',
  ],
];

for (const [name, value, message] of refused) {
  Deno.test(`parseModelConfig refuses ${name}`, () => {
    const error = assertThrows(() => parseModelConfig(value, { source }), ConfigError, message);
    assertEquals(error.message.startsWith("Cannot use config folder/config.json: "), true, error.message);
    assertEquals(error.message.includes("\n"), false);
  });
}

Deno.test("numUniqueLayers counts the layers with weights of their own", () => {
  const counts = (sharing: string, layers: number): number =>
    numUniqueLayers(parse({ router: null, recursion: { ...recursion, sharing }, num_hidden_layers: layers }));
  assertEquals(counts("middle_cycle", 32), 12);
  assertEquals(counts("middle_sequence", 32), 12);
  assertEquals(counts("cycle", 30), 10);
  assertEquals(counts("sequence", 30), 10);
  assertEquals(numUniqueLayers(parse({ recursion: null, router: null })), 32);
  assertEquals(hasUnsharedEnds(parse().recursion!), true);
});

Deno.test("keptTokens rounds down and keeps at least one", () => {
  const router = parse().router as ExpertChoiceConfig;
  const kept = (numRecursions: number, tokens: number): number[] =>
    keptTokens(router, { numRecursions, tokens });
  assertEquals(kept(3, 2048), [2048, 1365, 682]);
  assertEquals(kept(3, 20), [20, 13, 6]);
  assertEquals(kept(2, 17), [17, 8]);
  assertEquals(kept(4, 3), [3, 2, 1, 1]);
  assertEquals(kept(3, 1), [1, 1, 1]);
  // Exact fractions: in floats 1 / 49 * 49 is less than 1.
  for (let n = 2; n <= 50; n++) assertEquals(kept(n, n), Array.from({ length: n }, (_, r) => n - r));
});

Deno.test("keptTokens takes a list of capacities as fractions of the whole sequence", () => {
  const capacities = [0.9, 0.5, 0.01];
  const { router } = parse({ router: { ...json.router, capacities } });
  assertEquals(keptTokens(router as ExpertChoiceConfig, { numRecursions: 3, tokens: 33 }), [29, 16, 1]);
});
