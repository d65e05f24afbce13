/** GGUF files, held to what llama.cpp made of them (`fixtures/export/README.md`), and exact on the way back. */
import { join } from "@std/path";
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { GpuDevice } from "../../../gpu/device.ts";
import { openCheckpoint } from "../../../model/files/checkpoint_source.ts";
import { ConfigError, type FactorsRopeScaling, type ModelConfig } from "../../../model/config.ts";
import type { ExportOptions } from "../../../model/exchange/export_folder.ts";
import { exportGguf } from "../../../model/exchange/export_gguf.ts";
import { generate } from "../../../model/generate.ts";
import { openGguf } from "../../../model/files/gguf_file.ts";
import { fillWeights, planWeights } from "../../../model/load_weights.ts";
import { blockLength, type EncodedFormat, type NumberFormat } from "../../../model/files/number_formats.ts";
import { ropeScales } from "../../../model/rope_scaling.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import { tokenizerFor } from "../../../model/text/tokenizer_source.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRopeScaling } from "../../reference/tiny_model.ts";
import { gpuTest } from "../../support/device.ts";
import { EXPORT_SEED as seed, vanillaCase } from "../../support/export_cases.ts";
import { ggufCases } from "../../support/gguf_cases.ts";
import { contentOf, memoryWeightFile, seededWeights, storedWeights } from "../../support/memory_weights.ts";
import { folderTest } from "../../support/program.ts";

/** What llama.cpp made of a file; tokens are ids with spaces between them. */
interface Recorded {
  readonly sha256: string;
  /** What follows the prompt. */
  readonly greedy: string;
  /** Of each text. */
  readonly tokens: readonly string[];
}

const recorded: {
  readonly prompt: string;
  readonly texts: readonly string[];
  readonly cases: Readonly<Record<string, Recorded>>;
} = JSON.parse(Deno.readTextFileSync(new URL("../../../fixtures/export/gguf.json", import.meta.url)));

type Options = ExportOptions<EncodedFormat>;

/** A model on bytes with its seeded weights, unless told otherwise. */
function optionsOf(config: ModelConfig, out: string, changes: Partial<Options> = {}): Options {
  const weights = memoryWeightFile(seededWeights(config, { seed }));
  return { config, weights, tokenizer: "byte", dtype: null, out, ...changes };
}

/** The likeliest tokens after the prompt. */
async function continuation(device: GpuDevice, path: string, count: number): Promise<string> {
  const { config, openWeights } = await openCheckpoint(path);
  using file = await openWeights();
  const planned = planWeights(device, { config, file, choice: "auto" });
  await fillWeights(device, planned, { file });
  const tokens = generate(device, { config, weights: planned.weights }, {
    prompt: recorded.prompt.split(" ").map(Number),
    count,
    sampling: { temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 1 },
    seed: 0,
    logProbabilities: 0,
    endTokens: [],
  });
  return (await Array.fromAsync(tokens, ({ id }) => id)).join(" ");
}

for (const [name, { config, tokenizer, dtype }] of Object.entries(ggufCases)) {
  const { sha256, greedy, tokens } = recorded.cases[name]!;
  gpuTest(`exportGguf writes the file that llama.cpp ran, which runs here alike: ${name}`, async (device) => {
    const folder = await Deno.makeTempDir();
    const out = join(folder, `${name}.gguf`);
    await exportGguf(optionsOf(config, out, { tokenizer, dtype }));
    const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(out));
    assertEquals(new Uint8Array(digest).toHex(), sha256);
    assertEquals(await continuation(device, out, greedy.split(" ").length), greedy);
    const source = await openCheckpoint(out);
    const read = tokenizerFor(await source.readTokenizer(), { config: source.config });
    const original = tokenizerFor(tokenizer, { config });
    recorded.texts.forEach((text, i) => {
      for (const own of [original, read]) {
        assertEquals(own.encode(text, { addSpecialTokens: false }).join(" "), tokens[i], text);
        assertEquals(own.encode(text), original.encode(text));
      }
    });
    assertEquals(read.endTokens, original.endTokens);
    await Deno.remove(folder, { recursive: true });
  });
}

/** A model whose rows are whole blocks of every format. */
function blockModel(format: NumberFormat): ModelConfig {
  const width = blockLength(format) === 256 ? 256 : 64;
  return tinyConfig({
    vocabSize: 257,
    hiddenSize: width,
    intermediateSize: width,
    numHiddenLayers: 1,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    headDim: width / 4,
    maxPositionEmbeddings: 256,
    rmsNormEps: 1e-6,
    tieWordEmbeddings: false,
    tokenizer: "byte",
  });
}

/** llama.cpp's numbers of files, and whether they have blocks. */
const fileTypes = { f32: 0, f16: 1, bf16: 32, q8_0: 7, q4_0: 2, q4_1: 3, q4_k: 15, q6_k: 18 } as const;

for (const [format, fileType] of Object.entries(fileTypes) as [NumberFormat, number][]) {
  folderTest(`weights stored as ${format} come back bit for bit, norms as f32`, async (folder) => {
    const config = blockModel(format);
    const stored = storedWeights(config, { seed, format });
    const norm = "model.norm.weight";
    const half = seededWeights(config, { seed, format: "f16" }).get(norm)!;
    const weights = memoryWeightFile(new Map([...stored, [norm, half]]));
    const out = join(folder, "new", "model.gguf");
    await exportGguf(optionsOf(config, out, { weights }));
    using file = await openGguf(out);
    const { [norm]: readNorm, ...read } = Object.fromEntries(await contentOf(file));
    const { [norm]: _, ...wanted } = Object.fromEntries(stored);
    assertEquals(read, wanted);
    assertEquals(readNorm!.format, "f32");
    const values = new Float16Array(half.bytes.buffer);
    assertEquals(new Float32Array(readNorm!.bytes.buffer), Float32Array.from(values));
    const { metadata } = file;
    assertEquals([metadata["general.file_type"], metadata["general.name"]], [fileType, "model"]);
    assertEquals(metadata["general.quantization_version"], blockLength(format) > 1 ? 2 : undefined);
    const { extra, ...rest } = (await openCheckpoint(out)).config;
    assertEquals({ ...rest, extra: {} }, config);
    assertEquals(extra, { bos_token_id: 256, eos_token_id: 256 });
  });
}

folderTest("--dtype packs matrices of whole blocks; a tied head is not there", async (folder) => {
  const config = { ...blockModel("q8_0"), tieWordEmbeddings: true, intermediateSize: 48 };
  const out = join(folder, "a.gguf");
  const seen: string[] = [];
  await exportGguf(optionsOf(config, out, {
    dtype: "q4_0",
    onWeight: ({ name, index, count }) => seen.push(`${name} ${index} ${count}`),
  }));
  using file = await openGguf(out);
  const layer = "model.layers.0.";
  const formats = Array.from(file.entries, ([name, { format }]) => [name.replace(layer, ""), format]);
  assertEquals(Object.fromEntries(formats), {
    "model.embed_tokens.weight": "q4_0",
    "input_layernorm.weight": "f32",
    "self_attn.q_proj.weight": "q4_0",
    "self_attn.k_proj.weight": "q4_0",
    "self_attn.v_proj.weight": "q4_0",
    "self_attn.o_proj.weight": "q4_0",
    "post_attention_layernorm.weight": "f32",
    "mlp.gate_proj.weight": "q4_0",
    "mlp.up_proj.weight": "q4_0",
    "mlp.down_proj.weight": "f32",
    "model.norm.weight": "f32",
  });
  assertEquals([seen.length, seen[0], seen.at(-1)], [
    11,
    "token_embd.weight 0 11",
    "output_norm.weight 10 11",
  ]);
});

folderTest("RoPE's scaling is what it was, llama3 as factors", async (folder) => {
  const { config } = ggufCases.byte_level!;
  async function readScaling(ropeScaling: ModelConfig["ropeScaling"], name: string): Promise<unknown> {
    const out = join(folder, `${name}.gguf`);
    await exportGguf(optionsOf({ ...config, ropeScaling }, out));
    return (await openCheckpoint(out)).config.ropeScaling;
  }
  const linear = { kind: "linear", factor: 2.5 } as const;
  assertEquals(await readScaling(linear, "linear"), linear);
  assertEquals(await readScaling(null, "none"), null);
  const yarn = {
    kind: "yarn",
    factor: 8,
    originalMaxPositionEmbeddings: 16,
    betaFast: 32,
    betaSlow: 1,
    truncate: true,
    attentionFactor: 0.1 * Math.log(8) + 1,
  } as const;
  assertEquals(await readScaling(yarn, "yarn"), yarn);
  const factors = { kind: "factors", factors: [1, 1, 1, 1.5, 2, 3, 4, 64] } as const;
  assertEquals(await readScaling(factors, "factors"), factors);
  const read = await readScaling(config.ropeScaling, "llama3") as FactorsRopeScaling;
  assertEquals(read.kind, "factors");
  assertEquals(read.factors.map(Math.fround), Array.from(ropeScales(config).divisors, Math.fround));
});

folderTest("what llama.cpp cannot run is refused, and then nothing is written", async (folder) => {
  const out = join(folder, "out", "a.gguf");
  const recursive = tinyRecursiveConfig({ sharing: "cycle", numRecursions: 2, blockLayers: 1 });
  const cases: readonly (readonly [options: Options, part: string])[] = [
    [optionsOf(recursive, out), "a recursive model as GGUF"],
    [optionsOf(vanillaCase, out, { tokenizer: null }), "the model has no tokenizer"],
    [
      optionsOf({ ...vanillaCase, ropeScaling: tinyRopeScaling }, out),
      "beta_fast 1, beta_slow 0.2, truncate false",
    ],
    [optionsOf(tinyConfig(), out), "it has 257 tokens, the model 11"],
    [optionsOf(vanillaCase, join(folder, "out", "model")), "wanted a name that ends in .gguf"],
  ];
  for (const [options, part] of cases) await assertRejects(() => exportGguf(options), ConfigError, part);
  const missing = seededWeights(vanillaCase, { seed });
  missing.delete("model.norm.weight");
  await assertRejects(
    () => exportGguf(optionsOf(vanillaCase, out, { weights: memoryWeightFile(missing, "some/file") })),
    CheckpointError,
    'Cannot load some/file: tensor "model.norm.weight" is missing',
  );
  assertEquals([...Deno.readDirSync(folder)], []);
});

folderTest("a file that is there stays, and one that fails on the way leaves nothing", async (folder) => {
  const out = join(folder, "a.gguf");
  await Deno.writeTextFile(out, "precious");
  await assertRejects(() => exportGguf(optionsOf(vanillaCase, out)), ConfigError, "it is there already");
  assertEquals(await Deno.readTextFile(out), "precious");
  const weights = seededWeights(vanillaCase, { seed });
  const name = "model.layers.2.self_attn.k_proj.weight";
  const { shape, bytes } = weights.get(name)!;
  new Float32Array(bytes.buffer)[100] = 70000;
  weights.set(name, { shape, format: "f32", bytes });
  const other = join(folder, "b.gguf");
  await assertRejects(
    () => exportGguf(optionsOf(vanillaCase, other, { weights: memoryWeightFile(weights), dtype: "f16" })),
    CheckpointError,
    `"${name}": Cannot store 70000 as f16`,
  );
  assert([...Deno.readDirSync(folder)].length === 1);
});
