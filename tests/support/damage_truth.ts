/** What a model's files say, read without the product: every tensor's numbers, and the configuration. */
import { decodeNumbers, type NumberFormat } from "../../model/files/number_formats.ts";
import { ggufAnatomy } from "./damage_gguf.ts";
import type { Files } from "./damage_models.ts";
import { safetensorsAnatomy } from "./damage_safetensors.ts";
import { ggufConfig, jsonConfig } from "./damage_config.ts";

export interface TrueTensor {
  readonly shape: readonly number[];
  readonly numbers: Float32Array<ArrayBuffer>;
}

/** A model as its files describe it. */
export interface TrueModel {
  readonly tensors: ReadonlyMap<string, TrueTensor>;
  /** Fields of a ModelConfig. */
  readonly config: Fields;
}

/** @throws Error where the files contradict themselves, or are not what they should be. */
export function trueModel(files: Files): TrueModel {
  const gguf = Object.keys(files).find((name) => name.endsWith(".gguf"));
  if (gguf !== undefined) return trueGguf(files[gguf]!);
  const tensors = files["model.safetensors"]
    ? trueSafetensors(files["model.safetensors"])
    : trueShards(files);
  return { tensors, config: jsonConfig(parseText(files["config.json"]!) as Fields) };
}

function trueShards(files: Files): Map<string, TrueTensor> {
  const { weight_map } = parseText(files["model.safetensors.index.json"]!) as {
    weight_map: Record<string, string>;
  };
  const tensors = new Map<string, TrueTensor>();
  for (const shard of new Set(Object.values(weight_map))) {
    for (const [name, tensor] of trueSafetensors(files[shard]!)) {
      if (weight_map[name] !== shard) throw new Error(`${name} is in ${shard}, the index says otherwise`);
      tensors.set(name, tensor);
    }
  }
  const missing = Object.keys(weight_map).find((name) => !tensors.has(name));
  if (missing !== undefined) throw new Error(`${missing} is nowhere`);
  return tensors;
}

function trueSafetensors(bytes: Uint8Array<ArrayBuffer>): Map<string, TrueTensor> {
  const { metadata, tensors, data } = safetensorsAnatomy(bytes);
  const ranges: Range[] = [];
  const read = new Map<string, TrueTensor>();
  for (const [name, { dtype, shape, data_offsets: [begin, end] }] of tensors) {
    const format = (dtype === "U8" ? metadata.quantized! : dtype.toLowerCase()) as NumberFormat;
    const range = { begin, length: end - begin };
    const numbers = decodeNumbers(format, take(data, range));
    const rows = shape.slice(0, -1);
    const columns = dtype === "U8" ? numbers.length / rows[0]! : shape.at(-1)!;
    ranges.push(range);
    read.set(name, { shape: [...rows, columns], numbers });
  }
  checkCover(ranges, { begin: 0, end: data.length, alignment: 1 });
  return read;
}

/** By ggml's number: format, numbers and bytes of a block. */
const GGML: Readonly<Record<number, readonly [format: NumberFormat, numbers: number, bytes: number]>> = {
  0: ["f32", 1, 4],
  1: ["f16", 1, 2],
  2: ["q4_0", 32, 18],
  3: ["q4_1", 32, 20],
  8: ["q8_0", 32, 34],
  12: ["q4_k", 256, 144],
  14: ["q6_k", 256, 210],
  30: ["bf16", 1, 2],
};

const LLAMA_NAMES: readonly (readonly [RegExp, string])[] = [
  [/^token_embd/, "model.embed_tokens"],
  [/^output_norm/, "model.norm"],
  [/^output\./, "lm_head."],
  [/^blk/, "model.layers"],
  [/attn_norm/, "input_layernorm"],
  [/ffn_norm/, "post_attention_layernorm"],
  [/attn_(q|k|v)\./, "self_attn.$1_proj."],
  [/attn_output/, "self_attn.o_proj"],
  [/ffn_(gate|up|down)/, "mlp.$1_proj"],
];

function trueGguf(bytes: Uint8Array<ArrayBuffer>): TrueModel {
  const { values, tensors: infos, length: headerBytes } = ggufAnatomy(bytes);
  const alignment = Number(values.get("general.alignment")?.value ?? 32);
  const dataStart = Math.ceil(headerBytes / alignment) * alignment;
  const ranges: Range[] = [];
  const tensors = new Map<string, TrueTensor>();
  for (const { name, dimensions, type, offset } of infos) {
    const [format, blockNumbers, blockBytes] = GGML[type]!;
    const count = dimensions.reduce((product, size) => product * size, 1);
    const range = { begin: dataStart + offset, length: (count / blockNumbers) * blockBytes };
    ranges.push(range);
    const translated = LLAMA_NAMES.reduce((text, [from, to]) => text.replace(from, to), name);
    tensors.set(translated, {
      shape: dimensions.toReversed(),
      numbers: decodeNumbers(format, take(bytes, range)),
    });
  }
  checkCover(ranges, { begin: dataStart, end: bytes.length, alignment });
  const factors = tensors.get("rope_freqs.weight")?.numbers;
  tensors.delete("rope_freqs.weight");
  const config = ggufConfig(values, {
    vocabSize: tensors.get("model.embed_tokens.weight")!.shape[0]!,
    isTied: !tensors.has("lm_head.weight"),
    ropeFactors: factors ? Array.from(factors) : null,
  });
  for (const [name, { shape, numbers }] of tensors) {
    if (!/[qk]_proj/.test(name)) continue;
    tensors.set(name, { shape, numbers: inHalves(numbers, { shape, headDim: config.headDim as number }) });
  }
  return { tensors, config };
}

/** The neighbours that llama.cpp rotates with each other, half a head apart. */
function inHalves(
  numbers: Float32Array<ArrayBuffer>,
  { shape: [rows = 0, columns = 0], headDim }: { shape: readonly number[]; headDim: number },
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(numbers.length);
  for (let row = 0; row < rows; row++) {
    const inHead = row % headDim;
    const to = row - inHead + (inHead % 2) * (headDim / 2) + Math.floor(inHead / 2);
    out.set(numbers.subarray(row * columns, (row + 1) * columns), to * columns);
  }
  return out;
}

interface Range {
  readonly begin: number;
  readonly length: number;
}

function take(bytes: Uint8Array<ArrayBuffer>, { begin, length }: Range): Uint8Array<ArrayBuffer> {
  const taken = bytes.slice(begin, begin + length);
  if (begin < 0 || taken.length !== length) throw new Error(`no ${length} bytes at ${begin}`);
  return taken;
}

/** Fails unless the ranges follow each other from beginning to end, with nothing but padding between them. */
function checkCover(
  ranges: Range[],
  { begin, end, alignment }: { begin: number; end: number; alignment: number },
): void {
  const padded = (place: number): number => Math.ceil(place / alignment) * alignment;
  let reached = begin;
  for (const range of ranges.sort((a, b) => a.begin - b.begin || a.length - b.length)) {
    if (range.begin !== padded(reached)) {
      throw new Error(`a tensor at ${range.begin}, wanted ${padded(reached)}`);
    }
    reached = range.begin + range.length;
  }
  if (end < reached || end > padded(reached)) {
    throw new Error(`the file ends at ${end}, its tensors at ${reached}`);
  }
}

/** What the files say about texts and tokens. */
export interface TrueTokenizer {
  readonly vocabSize: number;
  /** All that tokens follow from; the same facts make the same tokens. */
  readonly facts: string;
}

/** What the files say of the tokenizer; throws as `trueModel`. */
export function trueTokenizer(files: Files): TrueTokenizer {
  const gguf = Object.keys(files).find((name) => name.endsWith(".gguf"));
  if (gguf !== undefined) {
    const values = [...ggufAnatomy(files[gguf]!).values].filter(([key]) => key.startsWith("tokenizer."));
    const facts = values.map(([key, { value }]) => [key, value]);
    const tokens = values.find(([key]) => key === "tokenizer.ggml.tokens")![1].value as string[];
    return { vocabSize: tokens.length, facts: JSON.stringify(facts) };
  }
  const { tokenizer: kind = null, eos_token_id = null } = parseText(files["config.json"]!) as Fields;
  if (kind === "byte") return { vocabSize: 257, facts: "byte" };
  const { model, added_tokens, normalizer, pre_tokenizer, post_processor, decoder } = parseText(
    files["tokenizer.json"]!,
  ) as Fields;
  const { vocab } = model as { vocab: Record<string, number> };
  const added = (added_tokens as { content: string; id: number }[]).map(({ content, id }) =>
    [content, id] as const
  );
  const idOf = new Map([...Object.entries(vocab), ...added]);
  const ids = new Set([...Object.values(vocab), ...added.map(([, id]) => id)]);
  if (ids.size !== idOf.size) throw new Error(`${idOf.size} tokens with ${ids.size} ids`);
  const settings = files["tokenizer_config.json"] ? parseText(files["tokenizer_config.json"]) as Fields : {};
  const { bos_token, eos_token, chat_template } = settings;
  const facts = [
    ...[model, added_tokens, normalizer, pre_tokenizer, post_processor, decoder],
    ...[eos_token_id, bos_token, eos_token, chat_template],
  ];
  return { vocabSize: ids.size, facts: textOf(facts) };
}

/** What is nested too deeply to be written is in no original. */
function textOf(facts: unknown): string {
  try {
    return JSON.stringify(facts);
  } catch {
    return "nested without end";
  }
}

type Fields = Readonly<Record<string, unknown>>;

/** JSON of UTF-8. */
export function parseText(bytes: Uint8Array): unknown {
  return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
}
