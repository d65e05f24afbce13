import { assertEquals } from "@std/assert";
import type { ModelConfig } from "../../model/config.ts";
import { Decoder } from "../../model/decoder.ts";
import { GREEDY } from "../../model/sampling.ts";
import type { DecodedToken } from "../../model/slot_sampler.ts";
import { tinyRecursiveConfig, tinyTokenRouter } from "../reference/tiny_model.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const configs: Record<string, ModelConfig> = Object.fromEntries(
  (["recursion_wise", "shared"] as const).map((kvCache) => [
    kvCache,
    tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 }, {
      router: tinyTokenRouter(),
      kvCache,
    }),
  ]),
);

/** More than the rows that work as vectors, or than the rows of a tile. */
const TEXTS = 35;

const STEPS = 4;

for (const [name, config] of Object.entries(configs)) {
  gpuTest(`${TEXTS} texts in any order take the tokens that each takes alone: ${name}`, async (device) => {
    const { weights } = uploadModel(device, roundedModel(config, { seed: 26 }));
    const random = createRandom(7);
    const sampling = { ...GREEDY, seed: 0 };
    const prompts = Array.from(
      { length: TEXTS },
      (_, i) => Array.from({ length: 2 + i % 9 }, () => random.integer(11)),
    );
    const model = { config, weights, capacity: 20 };
    using alone = new Decoder(device, { ...model, slots: 1 });
    const wanted: DecodedToken[][] = [];
    for (const prompt of prompts) {
      const tokens = [await alone.start(0, { prompt, sampling })];
      for (const [token] of await alone.step([0], { count: STEPS })) tokens.push(token!);
      wanted.push(tokens);
    }
    using together = new Decoder(device, { ...model, slots: TEXTS });
    const met: DecodedToken[][] = [];
    for (const [slot, prompt] of prompts.entries()) {
      met.push([await together.start(slot, { prompt, sampling })]);
    }
    // Slots neither ascend nor descend: 18 and 35 have no common factor.
    const slots = met.map((_, i) => (i * 18) % TEXTS);
    for (const step of await together.step(slots, { count: STEPS })) {
      step.forEach((token, row) => met[slots[row]!]!.push(token));
    }
    const parts = (tokens: DecodedToken[]): number[][] => tokens.map(({ id, depth }) => [id, depth]);
    assertEquals(met.map(parts), wanted.map(parts));
  });
}
