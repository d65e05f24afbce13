import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { keptTokens, type ModelConfig, stepFractions } from "../../model/config.ts";
import { flopsPerToken } from "../../model/flops.ts";
import { cacheBytes, cacheBytesPerToken } from "../../model/kv_cache.ts";
import { presetConfig } from "../../model/presets.ts";
import { tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";

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

Deno.test("the full count knows each kind of router", () => {
  const recursion = { sharing: "cycle", numRecursions: 3, blockLayers: 1 } as const;
  const full = (router: ModelConfig["router"]): number =>
    flopsPerToken(tinyRecursiveConfig(recursion, { router }), { tokens: 16 }).full;
  const linear = full(tinyRouter());
  // C 8: a hidden layer of 16 and its output for each of three steps, in the place of one product with 8.
  assertEquals(full(tinyRouter({ architecture: "mlp" })) - linear, 3 * 2 * (8 * 16 + 16 - 8));
  assertEquals(full(tinyRouter({ auxiliary: "router" })) - linear, 3 * 2 * 8);
  assertEquals(full(tinyTokenRouter()), linear);
  assertEquals(full(tinyTokenRouter({ architecture: "mlp" })) - linear, 2 * (8 * 16 + 3 * 16 - 3 * 8));
});

Deno.test("stepFractions are the capacities, those of balance, or 1", () => {
  const recursion = { sharing: "cycle", numRecursions: 4, blockLayers: 1 } as const;
  const of = (router: ModelConfig["router"]): number[] =>
    stepFractions(tinyRecursiveConfig(recursion, { router }));
  assertEquals(of(tinyRouter()), [1, 0.75, 0.5, 0.25]);
  assertEquals(of(tinyTokenRouter()), [1, 0.75, 0.5, 0.25]);
  assertEquals(of(tinyRouter({ capacities: [0.9, 0.5, 0.5, 0.1] })), [0.9, 0.5, 0.5, 0.1]);
  assertEquals(of(null), [1, 1, 1, 1]);
  assertEquals(stepFractions(presetConfig("tiny-vanilla")), []);
});

Deno.test("cacheBytesPerToken is 2 G D floats for each layer, times the fraction of tokens that reach it", () => {
  const perLayer = 2 * 5 * 64 * 4;
  assertEquals(cacheBytesPerToken(presetConfig("360m")), 32 * perLayer);
  assertEquals(cacheBytesPerToken(presetConfig("360m-rec3")), 32 * perLayer);
  assertEquals(cacheBytesPerToken(shared(presetConfig("360m-rec3"))), 12 * perLayer);
  // (N + 1) / 2N of the block's three times ten layers.
  assertAlmostEquals(cacheBytesPerToken(presetConfig("360m-mor3")), (2 + 20) * perLayer, 1e-6);
  assertEquals(cacheBytesPerToken(shared(presetConfig("360m-mor3"))), 12 * perLayer);
});

Deno.test("recursion-wise caching takes (N + 1) / 2N of the block's part of a vanilla cache, sharing 1 / N", () => {
  for (const sharing of ["cycle", "middle_cycle"] as const) {
    for (const numRecursions of [1, 2, 3, 4]) {
      for (const router of [tinyRouter(), tinyTokenRouter()]) {
        const config = tinyRecursiveConfig({ sharing, numRecursions, blockLayers: 5 }, { router });
        const perLayer = 2 * config.numKeyValueHeads * config.headDim * 4;
        const ends = sharing === "cycle" ? 0 : 2 * perLayer;
        const vanilla = cacheBytesPerToken({ ...config, recursion: null, router: null }) - ends;
        assertEquals(vanilla, numRecursions * 5 * perLayer);
        const recursionWise = cacheBytesPerToken(config) - ends;
        assertAlmostEquals(recursionWise / vanilla, (numRecursions + 1) / (2 * numRecursions), 1e-12);
        assertAlmostEquals((cacheBytesPerToken(shared(config)) - ends) / vanilla, 1 / numRecursions, 1e-12);
      }
    }
  }
});

Deno.test("a text's exact bytes approach cacheBytesPerToken from below", () => {
  const router = tinyRouter({ capacities: [1, 0.7, 0.3] });
  const config = tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 3, blockLayers: 2 }, {
    router,
  });
  const perToken = cacheBytesPerToken(config);
  for (const tokens of [7, 99, 1001, 100_003]) {
    const active = keptTokens(router, { numRecursions: 3, tokens });
    const missing = perToken - cacheBytes(config, { tokens, active }) / tokens;
    // Less than one entry of 2 G D floats in each layer of two steps is rounded away.
    assert(
      missing >= 0 && missing < 2 * 2 * 32 / tokens,
      `${missing} of ${perToken} bytes at ${tokens} tokens`,
    );
  }
});
