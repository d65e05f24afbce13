/** What `mor inspect` says of caches and of weights in files; its other numbers are tested with the help. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import type { ModelConfig } from "../../model/config.ts";
import { modelConfigToJson } from "../../model/config_file.ts";
import { presetConfig } from "../../model/presets.ts";
import { assertFails, folderTest, morDone } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";
import { tinyRecursiveConfig, tinyRopeScaling, tinyRouter } from "../reference/tiny_model.ts";

// deno-lint-ignore no-explicit-any -- what `mor inspect --json` prints
async function inspect(model: string): Promise<any> {
  return JSON.parse((await morDone(["inspect", model, "--json"])).stdout);
}

async function cacheBytes(model: string): Promise<unknown> {
  return (await inspect(model)).kv_bytes_per_token;
}

/** Bytes of keys and values in a layer of the shape 360m. */
const layer = 2 * 5 * 64 * 4;

folderTest("inspect says the same of a config.json as of its preset", async (folder) => {
  const path = join(folder, "config.json");
  await Deno.writeTextFile(path, JSON.stringify(modelConfigToJson(presetConfig("360m-mor3"))));
  assertEquals(await inspect(path), await inspect("360m-mor3"));
});

Deno.test("inspect gives the bytes of each kind of cache", async () => {
  const bytes = { vanilla: 32 * layer, shared: 12 * layer };
  assertEquals(await cacheBytes("360m-mor3"), { ...bytes, recursion_wise: 22 * layer });
  assertEquals(await cacheBytes("360m-rec3"), { ...bytes, recursion_wise: 32 * layer });
  assertEquals(await cacheBytes("360m"), { recursion_wise: 32 * layer, shared: null, vanilla: 32 * layer });
  const { stdout } = await morDone(["inspect", "360m-mor3"]);
  assertStringIncludes(
    stdout,
    "56,320 bytes recursion-wise, 30,720 bytes shared (f32, mean depth; f16 takes half)\n",
  );
  assertStringIncludes(stdout, " 81,920 bytes for as many layers without recursion\n");
  assertStringIncludes(
    (await morDone(["inspect", "360m"])).stdout,
    "KV cache per token  81,920 bytes (f32; f16 takes half)\n",
  );
  const { kv_bytes_per_token: f32, kv_bytes_per_token_f16: f16 } = await inspect("360m-mor3");
  assertEquals(Object.keys(f16), Object.keys(f32));
  for (const name of Object.keys(f32)) assertEquals(f16[name], f32[name] / 2);
});

/** Models that cannot share keys and values, and their cache's layers. */
const unshared: Record<string, { config: ModelConfig; recursionWise: number }> = {
  "a sequence strategy": {
    config: tinyRecursiveConfig({ sharing: "middle_sequence", numRecursions: 3, blockLayers: 2 }),
    recursionWise: 8,
  },
  "a first step that not every token runs": {
    config: tinyRecursiveConfig({ sharing: "cycle", numRecursions: 2, blockLayers: 4 }, {
      router: tinyRouter({ capacities: [0.75, 0.5] }),
    }),
    recursionWise: 5,
  },
};

for (const [name, { config, recursionWise }] of Object.entries(unshared)) {
  folderTest(`inspect knows no shared cache for ${name}`, async (folder) => {
    await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(modelConfigToJson(config)));
    const perLayer = 2 * config.numKeyValueHeads * config.headDim * 4;
    assertEquals(await cacheBytes(folder), {
      recursion_wise: recursionWise * perLayer,
      shared: null,
      vanilla: 8 * perLayer,
    });
    const { stdout } = await morDone(["inspect", folder]);
    assertStringIncludes(stdout, "shared keys and values not possible");
  });
}

folderTest("inspect gives the same bytes whichever cache the model uses", async (folder) => {
  const config = { ...presetConfig("tiny"), kvCache: "shared" as const };
  await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(modelConfigToJson(config)));
  assertEquals(await cacheBytes(folder), await cacheBytes("tiny"));
});

folderTest("inspect says how RoPE is scaled, and nothing where it is not", async (folder) => {
  const config = { ...presetConfig("tiny"), ropeScaling: tinyRopeScaling };
  await Deno.writeTextFile(join(folder, "config.json"), JSON.stringify(modelConfigToJson(config)));
  assertStringIncludes((await morDone(["inspect", folder])).stdout, "RoPE scaling        yarn by 4\n");
  assertEquals((await morDone(["inspect", "tiny"])).stdout.includes("RoPE"), false);
});

const gguf = fromFileUrl(new URL("../../fixtures/gguf/tiny.gguf", import.meta.url));

Deno.test("inspect tells how each weight of a GGUF file is stored", async () => {
  const expected: Record<string, { shape: number[]; format: string }> = JSON.parse(
    await Deno.readTextFile(new URL("../../fixtures/gguf/tiny.json", import.meta.url)),
  );
  const { tensors, numbers_by_format: numbers, bytes_stored: bytes, bits_per_weight: bits, parameters } =
    await inspect(gguf);
  assertEquals(
    tensors,
    Object.entries(expected).map(([name, { shape, format }]) => ({ name, shape, format })),
  );
  const large = { f16: 2048, q8_0: 2048, bf16: 2048, f32: 1792 };
  assertEquals(numbers, { ...large, q4_0: 1024, q4_1: 1024, q4_k: 1024, q6_k: 1024 });
  // A block of 32 takes 34 bytes in q8_0, 18 in q4_0, 20 in q4_1; one of 256 takes 144 in q4_k, 210 in q6_k.
  const packed = 2048 / 32 * 34 + 1024 / 32 * (18 + 20) + 1024 / 256 * (144 + 210);
  assertEquals(bytes, 2 * 2048 * 2 + 1792 * 4 + packed);
  assertEquals(bits, 8 * bytes / parameters);
  const { stdout } = await morDone(["inspect", gguf]);
  assertStringIncludes(stdout, "\nstored              19.7 KiB, 13.41 bits per weight: 2,048 as f16, ");
  assertStringIncludes(stdout, " model.layers.0.mlp.up_proj.weight (4, 256) q6_k\n");
});

folderTest("inspect tells how checkpoints store weights, ours and Hugging Face's", async (folder) => {
  const [model, small, theirs] = [join(folder, "model"), join(folder, "small"), join(folder, "theirs")];
  await morDone(smallRun(model, "--model", "tiny-vanilla", "--steps", "1", "--eval-every", "0"));
  await morDone(["quantize", model, "--format", "q4_0", "--out", small]);
  await morDone(["export", model, "--format", "hf", "--dtype", "f16", "--out", theirs]);
  const own = await inspect(model);
  const { parameters } = own;
  assertEquals(own.numbers_by_format, { f32: parameters });
  assertEquals([own.bytes_stored, own.bits_per_weight], [own.bytes_f32, 32]);
  const quantized = await inspect(small);
  assertEquals(Object.keys(quantized.numbers_by_format), ["q4_0", "f32"]);
  const { q4_0, f32 } = quantized.numbers_by_format;
  assertEquals([q4_0 + f32, q4_0 / 32 * 18 + 4 * f32], [parameters, quantized.bytes_stored]);
  const { size } = await Deno.stat(join(small, "model.safetensors"));
  assertEquals(size - quantized.bytes_stored < 8192, true, `${size} and ${quantized.bytes_stored}`);
  const exported = await inspect(theirs);
  // All matrices: those whose rows are no whole blocks, too.
  assertEquals(exported.numbers_by_format, { f16: 246848, f32: 704 });
  await Deno.rename(join(theirs, "model.safetensors"), join(theirs, "model-1.safetensors"));
  const shards = exported.tensors.map(({ name }: { name: string }) => [name, "model-1.safetensors"]);
  const index = { weight_map: Object.fromEntries(shards) };
  await Deno.writeTextFile(join(theirs, "model.safetensors.index.json"), JSON.stringify(index));
  assertEquals(await inspect(theirs), exported);

  await Deno.remove(join(model, "model.safetensors"));
  assertEquals((await inspect(model)).numbers_by_format, undefined);
  const config = JSON.parse(await Deno.readTextFile(join(small, "config.json")));
  await Deno.writeTextFile(join(small, "config.json"), JSON.stringify({ ...config, vocab_size: 300 }));
  await assertFails(["inspect", small], { code: 1, parts: ["model.embed_tokens.weight", "(300, 64)"] });
});
