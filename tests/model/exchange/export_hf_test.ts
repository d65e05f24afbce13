/** Vanilla models in Hugging Face's form, held to what `transformers` read and computed (`fixtures/export/README.md`). */
import { join } from "@std/path";
import { assertEquals, assertRejects } from "@std/assert";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { readConfig } from "../../../model/files/checkpoint.ts";
import { ConfigError, type ModelConfig } from "../../../model/config.ts";
import type { FolderOptions } from "../../../model/exchange/export_folder.ts";
import { exportHuggingFace } from "../../../model/exchange/export_hf.ts";
import { forwardCausal } from "../../../model/forward.ts";
import { parameterTable } from "../../../model/parameters.ts";
import { CheckpointError, SafetensorsFile } from "../../../model/files/safetensors.ts";
import { byteTokenizer } from "../../../model/text/tokenizer.ts";
import { readWeight } from "../../../model/files/weight_file.ts";
import { tinyConfig, tinyRecursiveConfig } from "../../reference/tiny_model.ts";
import { assertClose } from "../../support/close.ts";
import { gpuTest } from "../../support/device.ts";
import { EXPORT_SEED as seed, vanillaCase } from "../../support/export_cases.ts";
import { readTensors } from "../../support/golden.ts";
import { uploadModel } from "../../support/gpu_model.ts";
import {
  memoryWeightFile,
  seededNumbers,
  seededWeights,
  storedWeights,
} from "../../support/memory_weights.ts";
import { folderTest } from "../../support/program.ts";
import { fixtureFiles } from "../../support/tokenizer_fixture.ts";

const fixtures = new URL("../../../fixtures/export/vanilla/", import.meta.url);

/** A model with its seeded weights and no tokenizer, unless told otherwise. */
function optionsOf(config: ModelConfig, out: string, changes: Partial<FolderOptions> = {}): FolderOptions {
  const weights = memoryWeightFile(seededWeights(config, { seed }));
  return { config, weights, tokenizer: null, dtype: null, out, ...changes };
}

function jsonOf(path: string): Record<string, unknown> {
  return JSON.parse(Deno.readTextFileSync(path));
}

folderTest("exportHuggingFace writes the folder that transformers loaded", async (folder) => {
  const out = join(folder, "new", "model");
  await exportHuggingFace(optionsOf(vanillaCase, out, { tokenizer: "byte" }));
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
  const [json, config] = ["tokenizer.json", "tokenizer_config.json"].map((name) =>
    JSON.parse(Deno.readTextFileSync(new URL(name, fixtures)))
  );
  const tokenizer = new HuggingFaceTokenizer(json, config);
  const allCharacters = String.fromCodePoint(...Array.from({ length: 0x250 }, (_, code) => code));
  assertEquals(tokenizer.encode("").ids, []);
  for (const text of [" a  b\n\t", "naïve 日本語 🙂👩‍👩‍👧", allCharacters]) {
    assertEquals(tokenizer.encode(text).ids, byteTokenizer.encode(text));
    assertEquals(tokenizer.decode(byteTokenizer.encode(text)), text);
  }
  assertEquals(tokenizer.encode("a<|endoftext|>").ids, [97, byteTokenizer.endOfText]);
});

for (const [format, dtype] of [["f16", "float16"], ["bf16", "bfloat16"], ["q8_0", "float32"]] as const) {
  folderTest(
    `weights stored as ${format} are exported as ${dtype}, with their exact values`,
    async (folder) => {
      const config = tinyConfig({ hiddenSize: 32, intermediateSize: 32, numAttentionHeads: 8 });
      const weights = memoryWeightFile(storedWeights(config, { format, seed }));
      const out = join(folder, "out");
      await exportHuggingFace(optionsOf(config, out, { weights }));
      assertEquals(jsonOf(join(out, "config.json")).torch_dtype, dtype);
      using file = await SafetensorsFile.open(join(out, "model.safetensors"));
      for (const { name, shape } of parameterTable(config)) {
        assertEquals(
          file.entries.get(name)!.format,
          format === "q8_0" || shape.length === 1 ? "f32" : format,
        );
        assertEquals(
          await readWeight(file, { name, shape }),
          await readWeight(weights, { name, shape }),
          name,
        );
      }
      const half = join(folder, "half");
      await exportHuggingFace(optionsOf(config, half, { weights, dtype: "f16" }));
      assertEquals(jsonOf(join(half, "config.json")).torch_dtype, "float16");
      using halves = await SafetensorsFile.open(join(half, "model.safetensors"));
      for (const { name, shape } of parameterTable(config)) {
        assertEquals(halves.entries.get(name)!.format, shape.length === 1 ? "f32" : "f16");
      }
    },
  );
}

folderTest("a tokenizer's files are written, to be taken as they are", async (folder) => {
  const config = tinyConfig({ vocabSize: 300 });
  const tokenizer = fixtureFiles("byte_level", { endTokens: [2, 0] });
  // Its config.json names one of the two that end texts.
  const known = { ...config, extra: { eos_token_id: 2 } };
  const alone = optionsOf(known, join(folder, "alone"), { tokenizer });
  await exportHuggingFace(alone);
  assertEquals(jsonOf(join(alone.out, "tokenizer.json")), tokenizer.tokenizer);
  assertEquals(jsonOf(join(alone.out, "tokenizer_config.json")), {
    tokenizer_class: "PreTrainedTokenizerFast",
    clean_up_tokenization_spaces: false,
  });
  const ends = { bos_token_id: null, eos_token_id: [2, 0] };
  assertEquals(jsonOf(join(alone.out, "generation_config.json")), ends);
  assertEquals(jsonOf(join(alone.out, "config.json")).eos_token_id, [2, 0]);

  const own = { tokenizer_class: "GPT2TokenizerFast", eos_token: "<|im_end|>" };
  const extra = {
    bos_token_id: 1,
    eos_token_id: 2,
    torch_dtype: "bfloat16",
    kv_sharing: {},
    use_cache: true,
  };
  const both = optionsOf({ ...config, extra }, join(folder, "both"), {
    tokenizer: { ...tokenizer, config: own, endTokens: [] },
  });
  await exportHuggingFace(both);
  assertEquals(jsonOf(join(both.out, "tokenizer_config.json")), own);
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
  const bias = new Map(seededWeights(config, { seed }));
  bias.set("model.layers.0.mlp.up_proj.bias", bias.get("model.norm.weight")!);
  const extra = optionsOf(config, out, { weights: memoryWeightFile(bias) });
  await assertRejects(
    () => exportHuggingFace(extra),
    CheckpointError,
    'up_proj.bias" has no place in the model',
  );
  const tokenizer = fixtureFiles("byte_level");
  const fewer = optionsOf(config, out, { tokenizer });
  await assertRejects(() => exportHuggingFace(fewer), ConfigError, "it has 300 tokens, the model 11");
  assertEquals([...Deno.readDirSync(folder)], []);
  for (
    const name of ["model.safetensors", "model.safetensors.index.json", "model.gguf", "pytorch_model.bin"]
  ) {
    const taken = join(folder, `with ${name}`);
    Deno.mkdirSync(taken);
    Deno.writeTextFileSync(join(taken, name), "");
    await assertRejects(
      () => exportHuggingFace(optionsOf(config, taken)),
      ConfigError,
      `Cannot write to ${taken}: it is not empty; name another folder`,
    );
  }
});
