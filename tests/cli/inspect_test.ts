/** What `mor inspect` says of caches; its other numbers are tested with the help. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { ModelConfig } from "../../model/config.ts";
import { modelConfigToJson } from "../../model/config_file.ts";
import { presetConfig } from "../../model/presets.ts";
import { folderTest, morDone } from "../support/program.ts";
import { tinyRecursiveConfig, tinyRopeScaling, tinyRouter } from "../reference/tiny_model.ts";

async function cacheBytes(model: string): Promise<unknown> {
  return JSON.parse((await morDone(["inspect", model, "--json"])).stdout).kv_bytes_per_token;
}

/** Bytes of keys and values in a layer of the shape 360m. */
const layer = 2 * 5 * 64 * 4;

Deno.test("inspect gives the bytes of each kind of cache", async () => {
  const bytes = { vanilla: 32 * layer, shared: 12 * layer };
  assertEquals(await cacheBytes("360m-mor3"), { ...bytes, recursion_wise: 22 * layer });
  assertEquals(await cacheBytes("360m-rec3"), { ...bytes, recursion_wise: 32 * layer });
  assertEquals(await cacheBytes("360m"), { recursion_wise: 32 * layer, shared: null, vanilla: 32 * layer });
  const { stdout } = await morDone(["inspect", "360m-mor3"]);
  assertStringIncludes(stdout, "56,320 bytes recursion-wise, 30,720 bytes shared (f32, mean depth)\n");
  assertStringIncludes(stdout, " 81,920 bytes for as many layers without recursion\n");
  assertStringIncludes(
    (await morDone(["inspect", "360m"])).stdout,
    "KV cache per token  81,920 bytes (f32)\n",
  );
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
