/** config.json of other people's models: read, written back, or refused by the name of what is missing here. */
import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { modelConfigToJson, parseModelConfig, parseModelConfigText } from "../../model/config_file.ts";
import { parameterCount } from "../../model/parameters.ts";
import { llama2, llama31, llama32, mistral, morLlama, smollm2, tinyLlama } from "../support/llama_configs.ts";

const source = "model/config.json";

function parse(json: object): ModelConfig {
  return parseModelConfig(json, { source });
}

/** Files, their published number of weights, and what is written in other words or left out when it says nothing. */
const published: Record<string, { json: object; weights: number; rewritten?: object }> = {
  "SmolLM2 135M": { json: smollm2, weights: 134_515_008, rewritten: { rope_scaling: undefined } },
  "TinyLlama 1.1B": { json: tinyLlama, weights: 1_100_048_384 },
  "Llama 2 7B": { json: llama2, weights: 6_738_415_616, rewritten: { rope_scaling: undefined } },
  "Llama 3.1 8B": { json: llama31, weights: 8_030_261_248 },
  "Llama 3.2 1B": {
    json: llama32,
    weights: 1_235_814_400,
    rewritten: {
      rope_parameters: undefined,
      rope_theta: 500000,
      rope_scaling: { ...llama31.rope_scaling, factor: 32 },
    },
  },
  "Mistral 7B v0.3": { json: mistral, weights: 7_248_023_552 },
};

/** What a file may leave out, as it is written. */
const implied = {
  head_dim: undefined,
  rope_theta: 10000,
  recursion: null,
  router: null,
  kv_cache: "recursion_wise",
};

for (const [name, { json, weights, rewritten = {} }] of Object.entries(published)) {
  Deno.test(`${name}'s configuration has the model's number of weights and keeps what it says`, () => {
    const config = parse(json);
    assertEquals(parameterCount(config), weights);
    const written = modelConfigToJson(config);
    const wanted = { ...implied, head_dim: config.headDim, ...json, ...rewritten };
    assertEquals(
      written,
      Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined)),
    );
    assertEquals(parse(JSON.parse(JSON.stringify(written))), config);
  });
}

Deno.test("a quantized model of mor with scaled RoPE survives the round trip to JSON", () => {
  assertEquals(modelConfigToJson(parse(morLlama)), morLlama);
});

Deno.test("a sliding window that no position lies beyond is no window", () => {
  const json = { ...mistral, sliding_window: 4096, max_position_embeddings: 4096 };
  assertEquals(parse(json).extra.sliding_window, 4096);
});

Deno.test("a field named as a property of every object is one like others", () => {
  const strange = '"__proto__":{"head_dim":4},"constructor":1,';
  const config = parseModelConfigText(`{${strange}${JSON.stringify(llama2).slice(1)}`, { source });
  assertEquals(config.headDim, 128);
  assertStringIncludes(JSON.stringify(modelConfigToJson(config)), strange);
});

const { sliding_window: _, ...silentMistral } = mistral;

const refused: Record<string, { json: object; message: string }> = {
  "another architecture": {
    json: { ...llama2, model_type: "qwen2" },
    message: 'field "model_type": Invalid option: expected one of "llama"|"mor_llama"|"mistral", met "qwen2"',
  },
  "a model without a language head": {
    json: { ...llama2, architectures: ["LlamaForSequenceClassification"] },
    message: 'architectures is "LlamaForSequenceClassification", wanted a language model',
  },
  "a sliding window": {
    json: { ...mistral, sliding_window: 4096 },
    message: "sliding_window is 4096, this version attends to every earlier token of 32768 " +
      "(max_position_embeddings); set max_position_embeddings to 4096",
  },
  "a Mistral file that leaves the window to that model's default": {
    json: silentMistral,
    message: "a mistral model must say its sliding_window",
  },
  "a Mistral model with recursion": {
    json: { ...mistral, recursion: morLlama.recursion },
    message: "a mistral model has no recursion; set model_type to mor_llama",
  },
  "rotation of a part of a head": {
    json: { ...llama2, partial_rotary_factor: 0.5 },
    message: "partial_rotary_factor is 0.5, this version has 1 only",
  },
  "interleaved rotation": {
    json: { ...smollm2, rope_interleaved: true },
    message: "rope_interleaved is true, this version has false only",
  },
  "biased feed-forward layers": {
    json: { ...llama2, mlp_bias: true },
    message: "mlp_bias is true, this version has false only",
  },
  "weights that another program quantized": {
    json: { ...llama2, quantization_config: { quant_method: "gptq", bits: 4 } },
    message:
      'quantization_config.quant_method is "gptq", this version reads weights of f32, f16, bf16 and those ' +
      "of mor quantize; take the model that is not quantized, or a GGUF file of it",
  },
  "quantized weights that do not say how": {
    json: { ...llama2, quantization_config: { load_in_4bit: true } },
    message: "quantization_config.quant_method is nothing",
  },
  "a quantized format that there is not": {
    json: { ...morLlama, quantization_config: { ...morLlama.quantization_config, format: "q2_k" } },
    message: 'field "quantization_config.format": ',
  },
  "an end-of-text token that is no id": {
    json: { ...llama2, eos_token_id: "</s>" },
    message: 'field "eos_token_id": expected a token id or a list of them, met "</s>"',
  },
  "an end-of-text token among ids that is none": {
    json: { ...llama2, eos_token_id: [2, null] },
    message: 'field "eos_token_id": expected a token id or a list of them',
  },
};

for (const [name, { json, message }] of Object.entries(refused)) {
  Deno.test(`parseModelConfig refuses ${name}`, () => {
    assertThrows(() => parse(json), ConfigError, `Cannot use config ${source}: ${message}`);
  });
}
