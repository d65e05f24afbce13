import { assert, assertEquals, assertThrows } from "@std/assert";
import { ConfigError, type ModelConfig, type Sharing } from "../../model/config.ts";
import { type InitMethod, sourceLayers } from "../../model/initialize_from.ts";
import { presetConfig } from "../../model/presets.ts";
import { unrolledLayers } from "../reference/sharing.ts";

const vanilla = presetConfig("tiny-vanilla");
const sharings: readonly Sharing[] = ["cycle", "sequence", "middle_cycle", "middle_sequence"];

/** A model without router that repeats a block. */
function recursive(sharing: Sharing, blockLayers: number, numRecursions = 2): ModelConfig {
  const ends = sharing.startsWith("middle_") ? 2 : 0;
  return {
    ...vanilla,
    numHiddenLayers: numRecursions * blockLayers + ends,
    recursion: { sharing, numRecursions, blockLayers },
  };
}

/** The source layer of each unique one, for methods that take one. */
function picked(config: ModelConfig, sourceLayerCount: number, method: InitMethod, seed = 0): number[] {
  return sourceLayers(config, { sourceLayerCount, method, seed }).map((layers) => {
    assertEquals(layers.length, 1);
    return layers[0]!;
  });
}

const stepwise = [
  { model: recursive("cycle", 3), source: 10, expected: [0, 4, 9] }, // 4.5 goes to the even neighbour
  { model: recursive("cycle", 3), source: 12, expected: [0, 6, 11] },
  { model: recursive("sequence", 4), source: 8, expected: [0, 2, 5, 7] },
  { model: recursive("cycle", 1), source: 6, expected: [0] },
  { model: recursive("middle_cycle", 1), source: 6, expected: [0, 1, 5] },
  { model: recursive("middle_cycle", 2), source: 4, expected: [0, 1, 2, 3] },
  { model: recursive("middle_sequence", 3), source: 12, expected: [0, 1, 6, 10, 11] }, // 5.5 likewise
  {
    model: presetConfig("135m-mor3"),
    source: 30,
    expected: [0, 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 29],
  },
  {
    model: presetConfig("360m-mor3"),
    source: 32,
    expected: [0, 1, 4, 7, 11, 14, 17, 20, 24, 27, 30, 31],
  },
  { model: { ...vanilla, numHiddenLayers: 4 }, source: 10, expected: [0, 3, 6, 9] },
];

for (const { model, source, expected } of stepwise) {
  const title = `${expected.length} unique layers of ${model.recursion?.sharing ?? "vanilla"} over ${source}`;
  Deno.test(`stepwise spreads ${title}`, () => {
    assertEquals(picked(model, source, "stepwise"), expected);
  });
}

Deno.test("lower and upper take neighbours, beside the ends where those are not shared", () => {
  for (const sharing of ["cycle", "sequence"] as const) {
    assertEquals(picked(recursive(sharing, 3), 10, "lower"), [0, 1, 2]);
    assertEquals(picked(recursive(sharing, 3), 10, "upper"), [7, 8, 9]);
  }
  for (const sharing of ["middle_cycle", "middle_sequence"] as const) {
    assertEquals(picked(recursive(sharing, 3), 10, "lower"), [0, 1, 2, 3, 9]);
    assertEquals(picked(recursive(sharing, 3), 10, "upper"), [0, 6, 7, 8, 9]);
  }
});

Deno.test("random draws different layers in order, by the seed, and keeps the ends", () => {
  for (const sharing of sharings) {
    const model = recursive(sharing, 5);
    const draws = [...Array(40).keys()].map((seed) => picked(model, 16, "random", seed));
    assertEquals(picked(model, 16, "random", 7), draws[7]);
    assertEquals(new Set(draws.map(String)).size > 30, true);
    const isMiddle = sharing.startsWith("middle_");
    for (const layers of draws) {
      const block = isMiddle ? layers.slice(1, -1) : layers;
      assertEquals(block.length, 5);
      assert(block.every((layer, i) => i === 0 || layer > block[i - 1]!), `${block} is not ascending`);
      assert(block[0]! >= (isMiddle ? 1 : 0) && block.at(-1)! <= (isMiddle ? 14 : 15));
      if (isMiddle) assertEquals([layers[0], layers.at(-1)], [0, 15]);
    }
    // Every layer has its chance.
    assertEquals(new Set(draws.flat()).size, 16);
  }
});

Deno.test("average takes all layers that share weights", () => {
  for (const sharing of sharings) {
    for (const [blockLayers, numRecursions] of [[3, 2], [1, 4], [4, 1], [2, 3]] as const) {
      const model = recursive(sharing, blockLayers, numRecursions);
      const unrolled = unrolledLayers(model);
      const layers = sourceLayers(model, { sourceLayerCount: unrolled.length, method: "average", seed: 0 });
      assertEquals(layers.flat().length, unrolled.length);
      layers.forEach((members, u) => members.forEach((layer) => assertEquals(unrolled[layer], u)));
    }
  }
  const settings = { sourceLayerCount: 5, method: "average", seed: 0 } as const;
  assertEquals(sourceLayers(vanilla, settings), [[0], [1], [2], [3], [4]]);
});

Deno.test("a source of too few layers, or not as deep as the average needs, is refused", () => {
  for (const method of ["stepwise", "lower", "upper", "random"] as const) {
    assertEquals(picked(recursive("middle_cycle", 3), 5, method), [0, 1, 2, 3, 4]);
    assertThrows(
      () => picked(recursive("middle_cycle", 3), 4, method),
      ConfigError,
      "5 unique layers: the source has 4",
    );
    assertThrows(
      () => picked(recursive("cycle", 3), 2, method),
      ConfigError,
      "3 unique layers: the source has 2",
    );
  }
  for (const sourceLayerCount of [7, 9]) {
    assertThrows(
      () => sourceLayers(recursive("middle_cycle", 3), { sourceLayerCount, method: "average", seed: 0 }),
      ConfigError,
      `the source has ${sourceLayerCount}, the model unrolls to 8`,
    );
  }
});
