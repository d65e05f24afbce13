/** Models that come back: what was exported and imported is what it was, bit for bit. */
import { join } from "@std/path";
import { assertEquals, assertRejects } from "@std/assert";
import { type CheckpointSource, openCheckpoint } from "../../../model/files/checkpoint_source.ts";
import { ConfigError, type ModelConfig } from "../../../model/config.ts";
import { modelConfigToJson } from "../../../model/config_file.ts";
import { exportAuthors } from "../../../model/exchange/export_authors.ts";
import { exportGguf } from "../../../model/exchange/export_gguf.ts";
import { exportHuggingFace } from "../../../model/exchange/export_hf.ts";
import { writeJson } from "../../../model/files/whole_file.ts";
import { importModel } from "../../../model/exchange/import_model.ts";
import { encodeNumbers, type NumberFormat } from "../../../model/files/number_formats.ts";
import { parameterTable } from "../../../model/parameters.ts";
import { CheckpointError, SafetensorsFile } from "../../../model/files/safetensors.ts";
import { writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { tokenizerFor } from "../../../model/text/tokenizer_source.ts";
import { readWeight } from "../../../model/files/weight_file.ts";
import { tinyConfig, tinyRopeScaling } from "../../reference/tiny_model.ts";
import { authorsCases, EXPORT_SEED as seed, vanillaCase } from "../../support/export_cases.ts";
import { ggufCases, sentencePieceFiles } from "../../support/gguf_cases.ts";
import {
  contentOf,
  type MemoryWeight,
  memoryWeightFile,
  seededWeights,
  storedWeights,
} from "../../support/memory_weights.ts";
import { folderTest } from "../../support/program.ts";
import { fixtureFiles, fixtureLines } from "../../support/tokenizer_fixture.ts";

/** A model whose rows are whole blocks. */
const config: ModelConfig = tinyConfig({
  ...{ vocabSize: 257, hiddenSize: 32, intermediateSize: 64, numAttentionHeads: 4, numKeyValueHeads: 2 },
  headDim: 16,
  tokenizer: "byte",
});

type Weights = ReadonlyMap<string, MemoryWeight>;

/** A model in memory. */
function sourceOf(config: ModelConfig, weights: Weights): CheckpointSource {
  return {
    path: "memory",
    config,
    openWeights: () => Promise.resolve(memoryWeightFile(weights)),
    readTokenizer: () => Promise.resolve("byte" as const),
  };
}

/** Imports a model, and what lies in the folder then. */
async function imported(
  source: CheckpointSource,
  { folder, dtype = null }: { folder: string; dtype?: "f32" | "f16" | null },
): Promise<{ config: ModelConfig; extra: ModelConfig["extra"]; content: Weights }> {
  const out = join(folder, "imported");
  await importModel(source, { tokenizer: await source.readTokenizer().catch(() => null), dtype, out });
  const { config: { extra, ...rest }, openWeights } = await openCheckpoint(out);
  using file = await openWeights();
  return { config: { ...rest, extra: {} }, extra, content: await contentOf(file) };
}

const formats = [["f32", {}], ["f16", { torch_dtype: "float16" }], ["bf16", {
  torch_dtype: "bfloat16",
}]] as const;

for (const [format, fields] of formats) {
  folderTest(`a model as ${format} comes back from a Hugging Face folder and a GGUF file`, async (folder) => {
    const weights = storedWeights(config, { seed, format });
    const options = { config, weights: memoryWeightFile(weights), tokenizer: "byte", dtype: null } as const;
    const [hf, gguf] = [join(folder, "hf", "model"), join(folder, "gguf", "model.gguf")];
    await exportHuggingFace({ ...options, out: hf });
    await exportGguf({ ...options, out: gguf });
    for (const path of [hf, gguf]) {
      const result = await imported(await openCheckpoint(path), { folder: join(path, "..") });
      assertEquals(result.config, config);
      assertEquals(result.content, weights);
      const { torch_dtype, eos_token_id } = result.extra;
      assertEquals([torch_dtype, eos_token_id], [
        "torch_dtype" in fields ? fields.torch_dtype : undefined,
        256,
      ]);
    }
  });
}

for (const format of ["q8_0", "q4_0"] as const) {
  folderTest(
    `blocks of ${format} stay in a GGUF file and back, and are numbers in other forms`,
    async (folder) => {
      const weights = storedWeights(config, { seed, format });
      const [quantized, gguf, hf] = ["quantized", "model.gguf", "hf"].map((name) => join(folder, name));
      const first = await imported(sourceOf(config, weights), { folder: quantized! });
      assertEquals(first.content, weights);
      const quantization_config = { quant_method: "mor", format, block_size: 32 };
      assertEquals(first.extra, { quantization_config });

      const source = await openCheckpoint(join(quantized!, "imported"));
      const options = {
        config: source.config,
        weights: await source.openWeights(),
        tokenizer: "byte",
        dtype: null,
      } as const;
      await exportGguf({ ...options, out: gguf! });
      await exportHuggingFace({ ...options, out: hf! });
      options.weights[Symbol.dispose]();
      const second = await imported(await openCheckpoint(gguf!), { folder });
      assertEquals([second.config, second.content], [config, weights]);
      assertEquals(second.extra.quantization_config, quantization_config);
      const numbers = await imported(await openCheckpoint(hf!), { folder: hf! });
      assertEquals([numbers.config, numbers.extra.quantization_config], [config, undefined]);
      await assertSameNumbers(numbers.content, { wanted: weights, format: "f32" });
    },
  );
}

/** Checks a model's numbers, and the format of its matrices. */
async function assertSameNumbers(
  content: Weights,
  { wanted, format }: { wanted: Weights; format: NumberFormat },
): Promise<void> {
  for (const spec of parameterTable(config)) {
    const met = await readWeight(memoryWeightFile(content), spec);
    assertEquals(met, await readWeight(memoryWeightFile(wanted), spec), spec.name);
    assertEquals(content.get(spec.name)!.format, spec.kind === "matrix" ? format : "f32");
  }
}

folderTest(
  "other blocks become f32; two kinds that a checkpoint can have stay as they are",
  async (folder) => {
    const other = storedWeights(config, { seed, format: "q4_1" });
    const { content, extra } = await imported(sourceOf(config, other), { folder: join(folder, "other") });
    await assertSameNumbers(content, { wanted: other, format: "f32" });
    assertEquals(extra, {});

    const embedding = "model.embed_tokens.weight";
    const mixed = storedWeights(config, { seed, format: "q4_0" });
    mixed.set(embedding, storedWeights(config, { seed, format: "q8_0" }).get(embedding)!);
    const both = await imported(sourceOf(config, mixed), { folder: join(folder, "mixed") });
    assertEquals(both.extra.quantization_config, { quant_method: "mor", format: "q4_0", block_size: 32 });
    assertEquals(both.content, mixed);
  },
);

folderTest("a wanted dtype is that of the matrices", async (folder) => {
  const weights = storedWeights(config, { seed, format: "q8_0" });
  const half = await imported(sourceOf(config, weights), { folder: join(folder, "half"), dtype: "f16" });
  const full = await imported(sourceOf(config, weights), { folder: join(folder, "full"), dtype: "f32" });
  await assertSameNumbers(full.content, { wanted: weights, format: "f32" });
  assertEquals([half.extra, full.extra], [{ torch_dtype: "float16" }, {}]);
  for (const [name, { shape, format, bytes }] of full.content) {
    const numbers = new Float32Array(bytes.buffer);
    const wanted = shape.length === 1 ? { shape, format, bytes } : {
      shape,
      format: "f16",
      bytes: encodeNumbers("f16", numbers),
    };
    assertEquals(half.content.get(name), wanted as MemoryWeight, name);
  }
});

for (const [name, config] of Object.entries(authorsCases)) {
  folderTest(`a recursive model comes back from the authors' code: ${name}`, async (folder) => {
    for (const format of ["f32", "f16"] as const) {
      const weights = storedWeights(config, { seed, format });
      const out = join(folder, format);
      await exportAuthors({ config, weights: memoryWeightFile(weights), tokenizer: null, dtype: null, out });
      const result = await imported(await openCheckpoint(out), { folder: out });
      assertEquals([result.config, result.content], [config, weights]);
    }
  });
}

folderTest("a sharded folder with scaled RoPE and a tokenizer of its own is put together", async (folder) => {
  const config = tinyConfig({ vocabSize: 300, ropeScaling: tinyRopeScaling });
  const weights = seededWeights(config, { seed });
  const shards = ["a.safetensors", "b.safetensors"];
  const shardOf = (i: number): string => shards[i % 2]!;
  for (const shard of shards) {
    const tensors = [...weights].filter((_, i) => shardOf(i) === shard)
      .map(([name, { shape, bytes }]) => ({ name, shape, data: () => new Float32Array(bytes.buffer) }));
    await writeSafetensors(join(folder, shard), { tensors, metadata: {} });
  }
  const weight_map = Object.fromEntries(Array.from(weights.keys(), (name, i) => [name, shardOf(i)]));
  await writeJson(join(folder, "model.safetensors.index.json"), { weight_map });
  await writeJson(join(folder, "config.json"), { ...modelConfigToJson(config), eos_token_id: [2, 0] });
  await writeJson(join(folder, "tokenizer.json"), fixtureFiles("byte_level").tokenizer);
  const result = await imported(await openCheckpoint(folder), { folder });
  assertEquals([result.config, result.content, result.extra], [config, weights, { eos_token_id: [2, 0] }]);
  const read = await openCheckpoint(join(folder, "imported"));
  const tokenizer = tokenizerFor(await read.readTokenizer(), read);
  assertEquals(tokenizer.endTokens, [2, 0]);
  for (const { text, ids } of fixtureLines("byte_level")) assertEquals(tokenizer.encode(text), ids);
});

folderTest("a GGUF file's tokenizer comes along", async (folder) => {
  const { config, tokenizer } = ggufCases.sentence_piece!;
  const path = join(folder, "a.gguf");
  const weights = memoryWeightFile(seededWeights(config, { seed }));
  await exportGguf({ config, tokenizer, weights, dtype: null, out: path });
  assertEquals((await imported(await openCheckpoint(path), { folder })).config, config);
  const read = await openCheckpoint(join(folder, "imported"));
  const own = tokenizerFor(await read.readTokenizer(), read);
  const original = tokenizerFor(sentencePieceFiles, { config });
  for (const text of ["abc a__proto__b é", " ab  ", ""]) {
    assertEquals(own.encode(text), original.encode(text));
  }
});

folderTest("a model without a tokenizer stays one", async (folder) => {
  const model = tinyConfig();
  const source = sourceOf(model, seededWeights(model, { seed }));
  const readTokenizer = (): Promise<never> => Promise.reject(new ConfigError("none"));
  await imported({ ...source, readTokenizer }, { folder });
  const names = Array.from(Deno.readDirSync(join(folder, "imported")), ({ name }) => name);
  assertEquals(names.sort(), ["config.json", "model.safetensors"]);
});

folderTest("a model is never overwritten, and what is damaged leaves nothing", async (folder) => {
  const weights = seededWeights(vanillaCase, { seed });
  await imported(sourceOf(vanillaCase, weights), { folder });
  await assertRejects(
    () => imported(sourceOf(vanillaCase, weights), { folder }),
    ConfigError,
    "it is not empty; name another folder",
  );
  const damaged = {
    ...memoryWeightFile(weights),
    readRows: () => Promise.reject(new CheckpointError("the file shrank")),
  };
  const source = { ...sourceOf(vanillaCase, weights), openWeights: () => Promise.resolve(damaged) };
  const out = join(folder, "out");
  await assertRejects(
    () => importModel(source, { tokenizer: "byte", dtype: null, out }),
    CheckpointError,
    "the file shrank",
  );
  assertEquals(Array.from(Deno.readDirSync(folder), ({ name }) => name), ["imported"]);
});

folderTest("the authors' weights run as they are", async (folder) => {
  const config = authorsCases.token_choice!;
  const weights = storedWeights(config, { seed, format: "f16" });
  await exportAuthors({
    config,
    weights: memoryWeightFile(weights),
    tokenizer: null,
    dtype: null,
    out: folder,
  });
  using file = await (await openCheckpoint(folder)).openWeights();
  assertEquals(await contentOf(file), weights);
});

folderTest("the file is closed when the authors' copies of a weight differ", async (folder) => {
  const config = authorsCases.token_choice!;
  const weights = memoryWeightFile(seededWeights(config, { seed }));
  await exportAuthors({ config, weights, tokenizer: null, dtype: null, out: folder });
  const path = join(folder, "model.safetensors");
  const bytes = await Deno.readFile(path);
  const dataStart = 8 + Number(new DataView(bytes.buffer).getBigUint64(0, true));
  {
    using file = await SafetensorsFile.open(path);
    bytes[dataStart + file.entries.get("lm_head.weight")!.dataOffsets[0]]! ^= 1;
  }
  await Deno.writeFile(path, bytes);
  const source = await openCheckpoint(folder);
  await assertRejects(() => source.openWeights(), CheckpointError, 'and "lm_head.weight" differ');
});

folderTest("of a folder with a config.json and a GGUF file the GGUF file is the model", async (folder) => {
  await Deno.copyFile(
    new URL("../../../fixtures/gguf/tiny.gguf", import.meta.url),
    join(folder, "tiny.gguf"),
  );
  await Deno.writeTextFile(join(folder, "config.json"), '{"model_type": "llama"}');
  const { path, config } = await openCheckpoint(folder);
  assertEquals([path, config.hiddenSize], [join(folder, "tiny.gguf"), 256]);
});
