import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { ConfigError, numUniqueLayers } from "../../model/config.ts";
import { modelConfigToJson, parseModelConfig } from "../../model/config_file.ts";
import { parameterCount, unrolledParameterCount } from "../../model/parameters.ts";
import { presetConfig, presetNames } from "../../model/presets.ts";

/** Weights besides embedding and routers, which the paper leaves out. */
function layerParameters(name: string): number {
  const config = presetConfig(name);
  return parameterCount({ ...config, router: null }) - config.vocabSize * config.hiddenSize;
}

Deno.test("the vanilla shapes have the paper's number of weights", () => {
  const counts = { "135m": 106_203_456, "360m": 314_635_200, "730m": 654_392_832, "1.7b": 1_610_713_088 };
  const embeddings = { "135m": 28_311_552, "360m": 47_185_920, "730m": 75_497_472, "1.7b": 100_663_296 };
  for (const [name, count] of Object.entries(counts)) {
    assertEquals(layerParameters(name), count, name);
    assertEquals(parameterCount(presetConfig(name)), count + embeddings[name as keyof typeof embeddings]);
  }
});

/** Unique weights in millions, unique and unrolled layers, as the paper's tables have them. */
const recursive: Record<string, readonly [millions: number, unique: number, unrolled: number]> = {
  "360m-mor2": [167, 17, 32],
  "360m-mor3": [118, 12, 32],
  "360m-mor4": [98, 10, 34],
  "135m-mor3": [42, 12, 32],
  "730m-mor3": [252, 10, 26],
  "1.7b-mor2": [870, 13, 24],
  "1.7b-mor3": [670, 10, 26],
};

for (const [name, [millions, unique, unrolled]] of Object.entries(recursive)) {
  Deno.test(`${name} has the paper's ${millions} million unique weights in ${unrolled} unrolled layers`, () => {
    const config = presetConfig(name);
    assertAlmostEquals(layerParameters(name) / 1e6, millions, 0.0125 * millions);
    assertEquals([numUniqueLayers(config), config.numHiddenLayers], [unique, unrolled]);
    const { blockLayers, numRecursions } = config.recursion!;
    const perLayer = (layerParameters(name) - config.hiddenSize) / unique;
    assertEquals(
      unrolledParameterCount(config) - parameterCount({ ...config, router: null }),
      (numRecursions - 1) * blockLayers * perLayer,
    );
    const baseline = presetConfig(name.replace("mor", "rec"));
    assertEquals(baseline, { ...config, router: null });
  });
}

Deno.test("every preset is a configuration that a checkpoint can hold", () => {
  const names = presetNames();
  assertEquals(new Set(names).size, names.length);
  for (const name of names) {
    const config = presetConfig(name);
    assertEquals(parseModelConfig(modelConfigToJson(config), { source: name }), config, name);
  }
});

Deno.test("demo and tiny are three recursions on bytes, of a million weights and less", () => {
  const demo = presetConfig("demo");
  assertEquals(demo, presetConfig("demo-mor3"));
  assertEquals([demo.tokenizer, demo.vocabSize, demo.numHiddenLayers], ["byte", 257, 5]);
  assertAlmostEquals(parameterCount(demo) / 1e6, 1, 0.1);
  assertEquals(parameterCount(presetConfig("tiny")) < 200_000, true);
  assertEquals(presetConfig("360m"), presetConfig("360m-vanilla"));
});

for (const name of ["", "135", "135m-mor5", "demo-", "toString", "__proto__", "DEMO"]) {
  Deno.test(`presetConfig refuses "${name}" and names the presets`, () => {
    const message = `Unknown preset "${name}"; presets are small, demo, tiny, 135m, 360m, 730m, 1.7b`;
    assertThrows(() => presetConfig(name), ConfigError, message);
  });
}
