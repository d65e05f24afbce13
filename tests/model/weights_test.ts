import { assertAlmostEquals, assertEquals, assertNotEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { readTensor } from "../../gpu/readback.ts";
import { ParameterLayout, type ParameterViews } from "../../model/parameter_layout.ts";
import { parameterTable } from "../../model/parameters.ts";
import { presetConfig } from "../../model/presets.ts";
import { initializeWeights, parameterSources, parameterTensor } from "../../model/weights.ts";
import { gpuTest } from "../support/device.ts";

const config = { ...presetConfig("tiny"), tieWordEmbeddings: false };
const layout = new ParameterLayout(config);

function fresh(device: GpuDevice, seed: number): ParameterViews {
  const weights = layout.allocate(device, "weights");
  initializeWeights(device, { layout, weights, seed });
  return weights;
}

gpuTest("initializeWeights draws matrices, sets norms to one and leaves padding zero", async (device) => {
  const weights = fresh(device, 1);
  let used = 0;
  for (const { name, kind, shape } of parameterTable(config)) {
    const values = Array.from(await readTensor(device, parameterTensor(layout, weights, name)));
    used += values.filter((value) => value !== 0).length;
    if (kind === "norm") {
      assertEquals(values, Array<number>(64).fill(1), name);
      continue;
    }
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / values.length);
    // Five standard deviations of the estimate from so many draws.
    const tolerance = 5 * config.initializerRange / Math.sqrt(2 * shape[0]! * shape[1]!);
    assertAlmostEquals(deviation, config.initializerRange, tolerance, name);
  }
  const all = Array.from(await readTensor(device, weights.flat));
  assertEquals(all.filter((value) => value !== 0).length, used);
});

gpuTest("each weight has a random stream of its own, set by the seed", async (device) => {
  const [first, again, other] = await Promise.all(
    [1, 1, 2].map((seed) => readTensor(device, fresh(device, seed).flat)),
  );
  assertEquals(again, first);
  assertNotEquals(other, first);
  const weights = fresh(device, 1);
  const layers = await Promise.all([0, 1, 2].map((u) => readTensor(device, weights.layers[u]!.qkv)));
  assertNotEquals(layers[0], layers[1]);
  assertNotEquals(layers[1], layers[2]);
  // A weight does not depend on which others the model has.
  const plain = new ParameterLayout({ ...config, router: null, tieWordEmbeddings: true });
  const views = plain.allocate(device, "weights");
  initializeWeights(device, { layout: plain, weights: views, seed: 1 });
  assertEquals(
    await readTensor(device, views.layers[1]!.gateUp),
    await readTensor(device, weights.layers[1]!.gateUp),
  );
});

gpuTest(
  "parameterSources gives every weight its name, shape and numbers, without padding",
  async (device) => {
    const weights = fresh(device, 1);
    const sources = parameterSources(device, { layout, views: weights, prefix: "exp_avg." });
    assertEquals(sources.map(({ name }) => name), [...layout.places.keys()].map((name) => `exp_avg.${name}`));
    const embedding = sources.find(({ name }) => name === "exp_avg.model.embed_tokens.weight")!;
    assertEquals(embedding.shape, [257, 64]);
    assertEquals((await embedding.data() as Float32Array).length, 257 * 64);
  },
);
