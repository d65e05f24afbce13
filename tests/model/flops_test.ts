import { assertAlmostEquals, assertEquals } from "@std/assert";
import type { ModelConfig } from "../../model/config.ts";
import { cacheBytesPerToken, flopsPerToken } from "../../model/flops.ts";
import { presetConfig } from "../../model/presets.ts";

/** Forward operations of the paper's runs, and its tokens per step. */
const BUDGET = 16.5e18;
const STEP_TOKENS = 1024 * 2048;

function shared(config: ModelConfig): ModelConfig {
  return { ...config, kvCache: "shared" };
}

/** Steps of the training recipes that were published with the paper. */
const published: Record<string, { config: ModelConfig; steps: number; within: number }> = {
  "360m": { config: presetConfig("360m"), steps: 9438, within: 0.5 },
  "360m-rec2": { config: presetConfig("360m-rec2"), steps: 9438, within: 0.5 },
  "360m-rec3": { config: presetConfig("360m-rec3"), steps: 9438, within: 0.5 },
  "360m-rec4": { config: presetConfig("360m-rec4"), steps: 8883, within: 0.5 },
  "360m-mor2": { config: presetConfig("360m-mor2"), steps: 12619, within: 0.5 },
  "360m-mor3": { config: presetConfig("360m-mor3"), steps: 14161, within: 1.1 },
  "360m-mor4": { config: presetConfig("360m-mor4"), steps: 14216, within: 0.5 },
  "360m-mor3, shared keys and values": {
    config: shared(presetConfig("360m-mor3")),
    steps: 14672,
    within: 0.5,
  },
  "135m-mor3": { config: presetConfig("135m-mor3"), steps: 36326, within: 2 },
};

for (const [name, { config, steps, within }] of Object.entries(published)) {
  Deno.test(`the paper's formula gives its published number of steps: ${name}`, () => {
    const { paper } = flopsPerToken(config, { tokens: 2048 });
    assertAlmostEquals(BUDGET / paper / STEP_TOKENS, steps, within);
  });
}

Deno.test("the full count adds the output head, grouped heads and routers", () => {
  // With as many key heads as query heads the layers cost what the paper says.
  const config = presetConfig("1.7b-mor3");
  const { paper, full } = flopsPerToken(config, { tokens: 2048 });
  assertAlmostEquals(full - paper, 2 * 2048 * 49152 + 3 * 2 * 2048, 1);
  // Fewer key heads: two projections of 960 x (960 - 320) less in each of 32 layers.
  const grouped = flopsPerToken(presetConfig("360m"), { tokens: 2048 });
  assertAlmostEquals(grouped.paper - grouped.full, 32 * 2 * 2 * 960 * 640 - 2 * 960 * 49152, 1);
});

Deno.test("flopsPerToken takes a list of capacities as it stands", () => {
  const config = presetConfig("1.7b-mor3");
  const withCapacities = (capacities: number[]): number => {
    const router = { ...config.router!, capacities } as ModelConfig["router"];
    return flopsPerToken({ ...config, router }, { tokens: 2048 }).paper;
  };
  const layer = 2 * (4 * 2048 ** 2 + 3 * 2048 * 8192);
  const attention = 2 * 2048 * 2048;
  assertAlmostEquals(
    withCapacities([1, 1, 1]),
    flopsPerToken(presetConfig("1.7b-rec3"), { tokens: 2048 }).paper,
    1,
  );
  const fractions = 2 * (layer + attention) + 8 * (0.75 * layer + 0.75 ** 2 * attention) +
    8 * (0.5 * layer + 0.25 * attention) + 8 * (0.25 * layer + 0.0625 * attention);
  assertAlmostEquals(withCapacities([0.75, 0.5, 0.25]), fractions, 1);
});

Deno.test("cacheBytesPerToken is 2 G D floats for each layer, times the fraction of tokens that reach it", () => {
  const perLayer = 2 * 5 * 64 * 4;
  assertEquals(cacheBytesPerToken(presetConfig("360m")), 32 * perLayer);
  assertEquals(cacheBytesPerToken(presetConfig("360m-rec3")), 32 * perLayer);
  // (N + 1) / 2N of the block's three times ten layers.
  assertAlmostEquals(cacheBytesPerToken(presetConfig("360m-mor3")), (2 + 20) * perLayer, 1e-6);
  assertEquals(cacheBytesPerToken(shared(presetConfig("360m-mor3"))), 12 * perLayer);
});
