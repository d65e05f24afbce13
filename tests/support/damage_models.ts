/** Whole models of every kind that can be opened, as files in memory, to be damaged. */
import { join } from "@std/path";
import type { ModelConfig } from "../../model/config.ts";
import { modelConfigToJson } from "../../model/config_file.ts";
import { encodeNumbers } from "../../model/files/number_formats.ts";
import { parameterTable } from "../../model/parameters.ts";
import { type TensorSource, writeSafetensors } from "../../model/files/safetensors_writer.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import { array, concat, ggufBytes, smallestModel, text, texts, u32, uint32 } from "./gguf_bytes.ts";
import { seededNumbers } from "./memory_weights.ts";
import { createRandom } from "./random.ts";
import { fixtureText } from "./tokenizer_fixture.ts";

/** Contents by name. */
export type Files = Readonly<Record<string, Uint8Array<ArrayBuffer>>>;

/** A model that can be opened. */
export interface DamageModel {
  readonly name: string;
  readonly files: Files;
  /** What is opened: one of the files, or with "" their folder. */
  readonly entry: string;
}

const CHAT_TEMPLATE = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + " +
  "message['content'] + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

const SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] as const;

/** This program's own form: recursion with routers, f32, tokens that are bytes. */
async function ownModel(): Promise<DamageModel> {
  const config = tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 2, blockLayers: 1 }, {
    router: tinyRouter(),
    vocabSize: 257,
    tokenizer: "byte",
    kvCache: "shared",
  });
  const weights = await safetensorsBytes(tensorsOf(config, () => "f32"));
  const files = { "config.json": jsonBytes(modelConfigToJson(config)), "model.safetensors": weights };
  return { name: "own", files, entry: "" };
}

/** Matrices as q8_0, norms as f32, a head of its own, a byte-level tokenizer with a chat template. */
async function quantizedModel(): Promise<DamageModel> {
  const config = tinyConfig({
    vocabSize: 300,
    hiddenSize: 32,
    intermediateSize: 64,
    headDim: 16,
    numHiddenLayers: 1,
    tieWordEmbeddings: false,
    ropeScaling: { kind: "linear", factor: 2 },
    extra: { quantization_config: { quant_method: "mor", format: "q8_0", block_size: 32 } },
  });
  const files = {
    "config.json": jsonBytes(modelConfigToJson(config)),
    "model.safetensors": await safetensorsBytes(
      tensorsOf(config, ({ kind }) => kind === "norm" ? "f32" : "q8_0"),
    ),
    "tokenizer.json": textBytes(fixtureText("byte_level")),
    "tokenizer_config.json": jsonBytes({ eos_token: "<|endoftext|>", chat_template: CHAT_TEMPLATE }),
  };
  return { name: "quantized", files, entry: "" };
}

/** As Hugging Face's library writes it: f16 and bf16 in two files, SentencePiece. */
async function shardedModel(): Promise<DamageModel> {
  const config = tinyConfig({
    vocabSize: 400,
    numHiddenLayers: 2,
    ropeTheta: 500000,
    extra: { architectures: ["LlamaForCausalLM"], hidden_act: "silu", bos_token_id: 1, eos_token_id: [2] },
  });
  const { router: _, recursion: __, kv_cache: ___, ...json } = modelConfigToJson(config);
  const tensors = tensorsOf(config, ({ name }) => name.includes("mlp") ? "bf16" : "f16");
  const parts = [tensors.slice(0, 8), tensors.slice(8)];
  const weightMap = parts.flatMap((part, i) => part.map(({ name }) => [name, SHARDS[i]]));
  const files = {
    "config.json": jsonBytes(json),
    [SHARDS[0]]: await safetensorsBytes(parts[0]!),
    [SHARDS[1]]: await safetensorsBytes(parts[1]!),
    "model.safetensors.index.json": jsonBytes({
      metadata: { total_size: 24000 },
      weight_map: Object.fromEntries(weightMap),
    }),
    "tokenizer.json": textBytes(fixtureText("sentence_piece")),
  };
  return { name: "sharded", files, entry: "" };
}

/** A GGUF file with every number format. */
function ggufModel(): DamageModel {
  const tiny = Deno.readFileSync(new URL("../../fixtures/gguf/tiny.gguf", import.meta.url));
  return { name: "gguf", files: { "tiny.gguf": tiny }, entry: "tiny.gguf" };
}

/** A GGUF file with a byte-level tokenizer and a chat template, alone in a folder. */
function ggufTextModel(): DamageModel {
  const { model, added_tokens: added } = JSON.parse(fixtureText("byte_level"));
  const vocabulary = Object.entries(model.vocab as Record<string, number>).sort(([, a], [, b]) => a - b);
  const types = vocabulary.map((_, id) => id < added.length ? 3 : 1);
  const [embedding, ...others] = smallestModel.tensors;
  const bytes = ggufBytes({
    values: [
      ...smallestModel.values,
      ["tokenizer.ggml.model", text("gpt2")],
      ["tokenizer.ggml.pre", text("smollm")],
      ["tokenizer.ggml.tokens", texts(vocabulary.map(([token]) => token))],
      [
        "tokenizer.ggml.token_type",
        array(5, { count: BigInt(types.length), items: concat(...types.map(u32)) }),
      ],
      ["tokenizer.ggml.merges", texts(model.merges.map((pair: string[]) => pair.join(" ")))],
      ["tokenizer.ggml.eos_token_id", uint32(0)],
      ["tokenizer.ggml.add_bos_token", concat(u32(7), Uint8Array.of(0))],
      ["tokenizer.chat_template", text(CHAT_TEMPLATE)],
    ],
    tensors: [{ ...embedding!, dimensions: [4, vocabulary.length] }, ...others],
  });
  // The tensors, which are zeros of f32 at the end.
  const numbers = Float32Array.from(createRandom(1).normals(5400 / 4));
  bytes.set(new Uint8Array(numbers.buffer), bytes.length - 5400);
  return { name: "gguf_text", files: { "text.gguf": bytes }, entry: "" };
}

/** All of them. */
export async function damageModels(): Promise<DamageModel[]> {
  return [await ownModel(), await quantizedModel(), await shardedModel(), ggufModel(), ggufTextModel()];
}

type Format = NonNullable<TensorSource["format"]>;
type Weight = ReturnType<typeof parameterTable>[number];

function tensorsOf(config: ModelConfig, formatOf: (weight: Weight) => Format): TensorSource[] {
  return parameterTable(config).map((weight): TensorSource => {
    const { name, shape } = weight;
    const format = formatOf(weight);
    const numbers = seededNumbers(weight, 6);
    async function* data(): AsyncGenerator<Uint8Array> {
      yield format === "bf16" ? upperHalves(numbers) : encodeNumbers(format, numbers);
    }
    return { name, shape, format, data };
  });
}

function upperHalves(numbers: Float32Array<ArrayBuffer>): Uint8Array {
  const bits = Uint32Array.from(new Uint32Array(numbers.buffer), (word) => word >>> 16);
  return new Uint8Array(Uint16Array.from(bits).buffer);
}

async function safetensorsBytes(tensors: readonly TensorSource[]): Promise<Uint8Array<ArrayBuffer>> {
  const folder = await Deno.makeTempDir();
  try {
    const path = join(folder, "model.safetensors");
    await writeSafetensors(path, { tensors, metadata: { format: "pt" } });
    return await Deno.readFile(path);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function jsonBytes(value: object): Uint8Array<ArrayBuffer> {
  return textBytes(JSON.stringify(value, null, 2) + "\n");
}

function textBytes(value: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(value);
}
