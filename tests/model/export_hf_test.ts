/** Vanilla models in Hugging Face's form, held to what `transformers` read and computed (`fixtures/export/README.md`). */
import { join } from "@std/path";
import { assertEquals, assertRejects } from "@std/assert";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { byteTokenizerConfig, byteTokenizerJson } from "../../model/byte_tokenizer_json.ts";
import { readConfig } from "../../model/checkpoint.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import type { ExportOptions } from "../../model/export_folder.ts";
import { exportHuggingFace } from "../../model/export_hf.ts";
import { forwardCausal } from "../../model/forward.ts";
import type { NumberFormat } from "../../model/number_formats.ts";
import { parameterTable } from "../../model/parameters.ts";
import { CheckpointError, SafetensorsFile } from "../../model/safetensors.ts";
import { byteTokenizer } from "../../model/tokenizer.ts";
import { readWeight } from "../../model/weight_file.ts";
import { tinyConfig, tinyRecursiveConfig } from "../reference/tiny_model.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { EXPORT_SEED as seed, vanillaCase } from "../support/export_cases.ts";
import { readTensors } from "../support/golden.ts";
import { uploadModel } from "../support/gpu_model.ts";
import { memoryWeightFile, seededNumbers, seededWeights } from "../support/memory_weights.ts";
import { folderTest } from "../support/program.ts";

const fixtures = new URL("../../fixtures/export/vanilla/", import.meta.url);

/** A model with its seeded weights and no tokenizer, unless told otherwise. */
function optionsOf(config: ModelConfig, out: string, changes: Partial<ExportOptions> = {}): ExportOptions {
  const weights = memoryWeightFile(seededWeights(config, { seed }));
  return { config, weights, tokenizer: null, tokenizerFiles: [], out, ...changes };
}

function jsonOf(path: string): Record<string, unknown> {
  return JSON.parse(Deno.readTextFileSync(path));
}

folderTest("exportHuggingFace writes the folder that transformers loaded", async (folder) => {
  const out = join(folder, "new", "model");
  await exportHuggingFace(optionsOf(vanillaCase, out, { tokenizer: byteTokenizer }));
  const json = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];
  assertEquals(
    [...Deno.readDirSync(out)].map(({ name }) => name).sort(),
    [...json, "model.safetensors"].sort(),
  );
  for (const name of json) {
    assertEquals(jsonOf(join(out, name)), JSON.parse(Deno.readTextFileSync(new URL(name, fixtures))), name);
  }
  const tensors = readTensors(new URL(`file://${join(out, "model.safetensors")}`));
  const table = parameterTable(vanillaCase);
  assertEquals([...tensors.keys()], table.map(({ name }) => name));
  for (const spec of table) {
    assertEquals(tensors.get(spec.name), { shape: spec.shape, data: seededNumbers(spec, seed) });
  }
  using file = await SafetensorsFile.open(join(out, "model.safetensors"));
  assertEquals(file.metadata, { format: "pt" });
  const { extra, ...rest } = await readConfig(out);
  assertEquals({ ...rest, extra: {} }, vanillaCase);
  assertEquals(extra.architectures, ["LlamaForCausalLM"]);
});

gpuTest("the model's logits are those that transformers computed of the exported folder", async (device) => {
  const recorded = readTensors(new URL("case.safetensors", fixtures));
  const ids = [Array.from(recorded.get("input_ids")!.data)];
  const weights = new Map(
    parameterTable(vanillaCase).map((spec) => [spec.name, Float64Array.from(seededNumbers(spec, seed))]),
  );
  const model = uploadModel(device, { config: vanillaCase, weights });
  const { logits } = await forwardCausal(device, { model, input: { ids, targets: null } });
  // Both in f32, summed in different orders.
  assertClose(logits.flat(2), recorded.get("logits")!.data, { relative: 1e-5, label: "logits" });
});

Deno.test("Hugging Face's tokenizer reads bytes as the byte tokenizer does", () => {
  const tokenizer = new HuggingFaceTokenizer(byteTokenizerJson(), byteTokenizerConfig({ maxPositions: 8 }));
  const allCharacters = String.fromCodePoint(...Array.from({ length: 0x250 }, (_, code) => code));
  assertEquals(tokenizer.encode("").ids, []);
  for (const text of [" a  b\n\t", "naïve 日本語 🙂👩‍👩‍👧", allCharacters]) {
    assertEquals(tokenizer.encode(text).ids, byteTokenizer.encode(text));
    assertEquals(tokenizer.decode(byteTokenizer.encode(text)), text);
  }
  assertEquals(tokenizer.encode("a<|endoftext|>").ids, [97, byteTokenizer.endOfText]);
});

for (const [format, dtype] of [["f16", "float16"], ["q8_0", "float32"], ["bf16", "float32"]] as const) {
  folderTest(`weights stored as ${format} are exported as ${dtype}, with their exact values`, async (out) => {
    const config = tinyConfig({ hiddenSize: 32, intermediateSize: 32, numAttentionHeads: 8 });
    const weights = memoryWeightFile(storedWeights(config, format));
    await exportHuggingFace(optionsOf(config, out, { weights }));
    assertEquals(jsonOf(join(out, "config.json")).torch_dtype, dtype);
    using file = await SafetensorsFile.open(join(out, "model.safetensors"));
    for (const { name, shape } of parameterTable(config)) {
      assertEquals(file.entries.get(name)!.format, format === "f16" && shape.length > 1 ? "f16" : "f32");
      assertEquals(await readWeight(file, { name, shape }), await readWeight(weights, { name, shape }), name);
    }
  });
}

/** Matrices of random bytes in a format, as it would store them, and f32 norms. */
function storedWeights(
  config: ModelConfig,
  format: NumberFormat & ("f16" | "bf16" | "q8_0"),
): ReturnType<typeof seededWeights> {
  const weights = seededWeights(config, { seed });
  for (const [name, { shape }] of weights) {
    if (shape.length === 1) continue;
    const f16 = seededWeights(config, { seed, format: "f16" }).get(name)!;
    if (format === "f16") weights.set(name, f16);
    else if (format === "bf16") weights.set(name, { ...f16, format });
    else {
      // A block is an f16 scale and 32 bytes: 17 half numbers.
      const blocks = shape[0]! * shape[1]! / 32;
      const bytes = new Uint8Array(blocks * 34);
      for (let i = 0; i < bytes.length; i++) bytes[i] = i % 34 === 1 ? 0x2c : i * 7;
      weights.set(name, { shape, format, bytes });
    }
  }
  return weights;
}

folderTest("a tokenizer's files are copied, and told to be taken as they are", async (folder) => {
  const config = tinyConfig();
  const path = join(folder, "tokenizer.json");
  const configPath = join(folder, "tokenizer_config.json");
  Deno.writeTextFileSync(path, '{"a tokenizer": 1 }');
  const tokenizer = { endTokens: [3, 5] };
  const alone = optionsOf(config, join(folder, "alone"), { tokenizer, tokenizerFiles: [path] });
  await exportHuggingFace(alone);
  assertEquals(Deno.readTextFileSync(join(alone.out, "tokenizer.json")), '{"a tokenizer": 1 }');
  const written = jsonOf(join(alone.out, "tokenizer_config.json"));
  assertEquals([written.tokenizer_class, written.model_max_length], ["PreTrainedTokenizerFast", 64]);
  assertEquals(jsonOf(join(alone.out, "generation_config.json")), {
    bos_token_id: null,
    eos_token_id: [3, 5],
  });

  Deno.writeTextFileSync(configPath, "{}");
  const extra = {
    bos_token_id: 1,
    eos_token_id: 2,
    torch_dtype: "bfloat16",
    kv_sharing: {},
    use_cache: true,
  };
  const both = optionsOf({ ...config, extra }, join(folder, "both"), {
    tokenizer,
    tokenizerFiles: [path, configPath],
  });
  await exportHuggingFace(both);
  assertEquals(Deno.readTextFileSync(join(both.out, "tokenizer_config.json")), "{}");
  const { bos_token_id, eos_token_id, torch_dtype, kv_sharing, use_cache } = jsonOf(
    join(both.out, "config.json"),
  );
  assertEquals([bos_token_id, eos_token_id, torch_dtype], [1, 2, "float32"]);
  assertEquals([kv_sharing, use_cache], [undefined, true]);
});

folderTest("exportHuggingFace refuses what it cannot write, and then writes nothing", async (folder) => {
  const out = join(folder, "out");
  const config = tinyConfig();
  const recursive = tinyRecursiveConfig({ sharing: "cycle", numRecursions: 2, blockLayers: 1 });
  const factors = tinyConfig({ ropeScaling: { kind: "factors", factors: [1, 2] } });
  await assertRejects(() => exportHuggingFace(optionsOf(recursive, out)), ConfigError, "recursive model");
  await assertRejects(() => exportHuggingFace(optionsOf(factors, out)), ConfigError, "list of factors");

  const weights = seededWeights(config, { seed });
  weights.delete("model.norm.weight");
  const missing = optionsOf(config, out, { weights: memoryWeightFile(weights, "some/file") });
  await assertRejects(
    () => exportHuggingFace(missing),
    CheckpointError,
    'Cannot load some/file: tensor "model.norm.weight" is missing',
  );
  const wider = optionsOf({ ...config, vocabSize: 12 }, out, { weights: optionsOf(config, out).weights });
  await assertRejects(() => exportHuggingFace(wider), CheckpointError, "has shape (11, 8), expected (12, 8)");
  for (const path of [out, join(out, "model.safetensors")]) {
    const own = optionsOf(config, out, { weights: memoryWeightFile(seededWeights(config, { seed }), path) });
    await assertRejects(() => exportHuggingFace(own), ConfigError, "name another folder");
  }
  assertEquals([...Deno.readDirSync(folder)], []);
});
