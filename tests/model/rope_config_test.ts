/** How config.json says what RoPE does: two forms, several kinds, one meaning. */
import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError, type ModelConfig, type RopeScaling } from "../../model/config.ts";
import { modelConfigToJson, parseModelConfig } from "../../model/config_file.ts";

const sizes = {
  vocab_size: 32,
  hidden_size: 32,
  intermediate_size: 32,
  num_attention_heads: 4,
  num_hidden_layers: 1,
  max_position_embeddings: 8192,
};

type Rope = Pick<ModelConfig, "ropeTheta" | "ropeScaling">;

function parse(fields: object): ModelConfig {
  return parseModelConfig({ ...sizes, ...fields }, { source: "config.json" });
}

function ropeOf(fields: object): Rope {
  const { ropeTheta, ropeScaling } = parse(fields);
  return { ropeTheta, ropeScaling };
}

const linear: RopeScaling = { kind: "linear", factor: 4 };
const yarn = {
  kind: "yarn",
  factor: 4,
  originalMaxPositionEmbeddings: 2048,
  betaFast: 32,
  betaSlow: 1,
  truncate: true,
  attentionFactor: 0.1 * Math.log(4) + 1,
} as const;
const yarnFields = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 2048 };
const llama3Fields = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
const factors = [1, 1.5, 2, 4];

const accepted: Record<string, { fields: object; rope: Partial<Rope> }> = {
  "nothing": { fields: {}, rope: {} },
  "nulls": { fields: { rope_theta: null, rope_scaling: null, rope_parameters: null }, rope: {} },
  "an empty record": { fields: { rope_scaling: {} }, rope: {} },
  "the default kind": { fields: { rope_scaling: { rope_type: "default", factor: null } }, rope: {} },
  "a base": { fields: { rope_theta: 5e5 }, rope: { ropeTheta: 5e5 } },
  "a base among newer parameters": {
    fields: { rope_parameters: { rope_type: "default", rope_theta: 5e5 } },
    rope: { ropeTheta: 5e5 },
  },
  "newer parameters of no kind": {
    fields: { rope_parameters: { rope_theta: 5e5 } },
    rope: { ropeTheta: 5e5 },
  },
  "the older name of the kind": {
    fields: { rope_scaling: { type: "linear", factor: 4 } },
    rope: { ropeScaling: linear },
  },
  "both names of the kind, of which the newer counts": {
    fields: { rope_scaling: { type: "dynamic", rope_type: "linear", factor: 4 } },
    rope: { ropeScaling: linear },
  },
  "both forms that say the same": {
    fields: {
      rope_theta: 5e5,
      rope_scaling: { type: "linear", factor: 4 },
      rope_parameters: { rope_type: "linear", factor: 4, rope_theta: 5e5, partial_rotary_factor: 1 },
    },
    rope: { ropeTheta: 5e5, ropeScaling: linear },
  },
  "YaRN's defaults": { fields: { rope_scaling: yarnFields }, rope: { ropeScaling: yarn } },
  "YaRN as its authors say it": {
    fields: {
      rope_scaling: { type: "yarn", factor: 4, original_max_position_embeddings: 2048, finetuned: true },
    },
    rope: { ropeScaling: yarn },
  },
  "YaRN's attention factor from two magnitudes": {
    fields: { rope_scaling: { ...yarnFields, mscale: 2, mscale_all_dim: 0.5 } },
    rope: {
      ropeScaling: {
        ...yarn,
        attentionFactor: (0.2 * Math.log(4) + 1) / (0.05 * Math.log(4) + 1),
      },
    },
  },
  "YaRN's attention factor where one magnitude is zero": {
    fields: { rope_scaling: { ...yarnFields, mscale: 2, mscale_all_dim: 0 } },
    rope: { ropeScaling: yarn },
  },
  "original positions beside the scaling": {
    fields: { rope_scaling: { type: "yarn", factor: 4 }, original_max_position_embeddings: 2048 },
    rope: { ropeScaling: yarn },
  },
  "no original positions, which are all of them": {
    fields: { rope_scaling: llama3Fields },
    rope: {
      ropeScaling: {
        kind: "llama3",
        factor: 8,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositionEmbeddings: 8192,
      },
    },
  },
  "a factor for each frequency": {
    fields: { rope_scaling: { rope_type: "factors", factors } },
    rope: { ropeScaling: { kind: "factors", factors } },
  },
};

for (const [name, { fields, rope }] of Object.entries(accepted)) {
  Deno.test(`parseModelConfig reads RoPE from ${name}, and again from what it writes`, () => {
    assertEquals(ropeOf(fields), { ropeTheta: 10000, ropeScaling: null, ...rope });
    const config = parse(fields);
    assertEquals(parse(JSON.parse(JSON.stringify(modelConfigToJson(config)))), config);
  });
}

const refused: Record<string, { fields: object; message: string }> = {
  "frequencies that change with the text": {
    fields: { rope_scaling: { type: "dynamic", factor: 2 } },
    message:
      'field "rope_scaling.rope_type": expected default, linear, llama3, yarn or factors, met "dynamic"',
  },
  "two sets of factors": {
    fields: { rope_parameters: { rope_type: "longrope", short_factor: [1], long_factor: [2] } },
    message:
      'field "rope_parameters.rope_type": expected default, linear, llama3, yarn or factors, met "longrope"',
  },
  "a kind that is no name": { fields: { rope_scaling: { rope_type: ["yarn"] } }, message: "rope_type" },
  "a scaling that is no record": { fields: { rope_scaling: 2 }, message: 'field "rope_scaling": ' },
  "a factor without a kind": {
    fields: { rope_scaling: { factor: 8 } },
    message: 'unknown field "rope_scaling.factor"',
  },
  "a field of another kind": {
    fields: { rope_scaling: { ...llama3Fields, beta_fast: 32 } },
    message: 'unknown field "rope_scaling.beta_fast"',
  },
  "scalings by layer": {
    fields: { rope_parameters: { full_attention: { rope_type: "default" } } },
    message: 'unknown field "rope_parameters.full_attention"',
  },
  "a missing factor": {
    fields: { rope_scaling: { type: "linear" } },
    message: 'field "rope_scaling.factor": ',
  },
  "a factor that shrinks": {
    fields: { rope_scaling: { type: "linear", factor: 0.5 } },
    message: 'field "rope_scaling.factor": ',
  },
  "rotation of a part of a head": {
    fields: { rope_parameters: { partial_rotary_factor: 0.5 } },
    message: 'field "rope_parameters.partial_rotary_factor": ',
  },
  "bounds in the wrong order": {
    fields: { rope_scaling: { ...llama3Fields, high_freq_factor: 1 } },
    message: "rope_scaling.high_freq_factor 1 must be above low_freq_factor 1",
  },
  "turns in the wrong order": {
    fields: { rope_scaling: { ...yarnFields, beta_fast: 0.5 } },
    message: "rope_scaling.beta_fast 0.5 must not be below beta_slow 1",
  },
  "turns so slow that no place in a head makes them": {
    fields: { rope_scaling: { ...yarnFields, beta_slow: 5e-324 } },
    message: 'field "rope_scaling.beta_slow": ',
  },
  "a factor beyond every text": {
    fields: { rope_scaling: { type: "linear", factor: 1e9 } },
    message: 'field "rope_scaling.factor": Too big: expected number to be <=1000000, met 1000000000',
  },
  "an attention factor that leaves no attention": {
    fields: { rope_scaling: { ...yarnFields, attention_factor: 0 } },
    message: 'field "rope_scaling.attention_factor": ',
  },
  "factors for another head size": {
    fields: { rope_scaling: { rope_type: "factors", factors: [1, 2] } },
    message: "rope_scaling.factors has 2 entries, wanted head_dim / 2 = 4",
  },
  "a factor of zero": {
    fields: { rope_scaling: { rope_type: "factors", factors: [1, 1, 1, 0] } },
    message: 'field "rope_scaling.factors.3": ',
  },
  "a base of 1": { fields: { rope_theta: 1 }, message: 'field "rope_theta": ' },
  "two bases": {
    fields: { rope_theta: 10000, rope_parameters: { rope_theta: 5e5 } },
    message: "rope_theta is both 10000 and 500000; keep the one that the model was trained with",
  },
  "two scalings": {
    fields: { rope_scaling: { type: "linear", factor: 4 }, rope_parameters: { rope_theta: 1e4 } },
    message: "rope_scaling and rope_parameters differ; keep the one that the model was trained with",
  },
  "two original lengths": {
    fields: { rope_scaling: yarnFields, original_max_position_embeddings: 4096 },
    message: "original_max_position_embeddings is both 2048 and 4096",
  },
};

for (const [name, { fields, message }] of Object.entries(refused)) {
  Deno.test(`parseModelConfig refuses ${name} as RoPE`, () => {
    assertThrows(() => parse(fields), ConfigError, `Cannot use config config.json: `);
    assertThrows(() => parse(fields), ConfigError, message);
  });
}
