/** Cached decoding: what it draws, for which text, and what it refuses. */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { Decoder } from "../../model/decoder.ts";
import { forwardCausal, greedyRecomputed, type Model } from "../../model/forward.ts";
import { GREEDY } from "../../model/sampling.ts";
import type { DecodedToken } from "../../model/slot_sampler.ts";
import {
  randomIds,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const long = { maxPositionEmbeddings: 400 };
const configs: Record<string, ModelConfig> = {
  "vanilla": tinyConfig(long),
  "recursive": tinyRecursiveConfig(middleCycle, long),
  "expert choice": tinyRecursiveConfig(middleCycle, { ...long, router: tinyRouter({ alpha: 1 }) }),
  "token choice": tinyRecursiveConfig(middleCycle, { ...long, router: tinyTokenRouter() }),
  "token choice, shared keys": tinyRecursiveConfig(middleCycle, {
    ...long,
    router: tinyTokenRouter(),
    kvCache: "shared",
  }),
};
const ids = Array.from(randomIds(tinyConfig(), { random: createRandom(71), count: 400 }));

function modelOf(device: GpuDevice, config: ModelConfig): Model {
  return uploadModel(device, roundedModel(config, { seed: 70 }));
}

const greedy = { ...GREEDY, seed: 0 };
const sampled = { temperature: 1, topK: 0, topP: 1, minP: 0, repeatPenalty: 1, seed: 5 };

/** The first `count` tokens of one text in a slot. */
async function continued(
  decoder: Decoder,
  { slot = 0, prompt, count, sampling }: {
    slot?: number;
    prompt: readonly number[];
    count: number;
    sampling: Parameters<Decoder["start"]>[1]["sampling"];
  },
): Promise<DecodedToken[]> {
  const tokens = [await decoder.start(slot, { prompt, sampling })];
  while (tokens.length < count) tokens.push((await decoder.step([slot]))[0]![0]!);
  return tokens;
}

function idsOf(tokens: readonly DecodedToken[]): number[] {
  return tokens.map(({ id }) => id);
}

for (const [name, config] of Object.entries(configs)) {
  gpuTest(
    `a prompt of several chunks, then steps, take the tokens of recomputing: ${name}`,
    async (device) => {
      const model = modelOf(device, config);
      // Chunks have 256 tokens.
      const prompt = ids.slice(0, 300);
      using decoder = new Decoder(device, { ...model, slots: 1, capacity: 310 });
      const tokens = await continued(decoder, { prompt, count: 3, sampling: greedy });
      assertEquals(idsOf(tokens), await greedyRecomputed(device, { model, prompt, count: 3 }));
      const text = [...prompt, ...idsOf(tokens).slice(0, 2)];
      const whole = await forwardCausal(device, { model, input: { ids: [text], targets: null } });
      assertEquals(tokens.map(({ depth }) => depth), [299, 300, 301].map((t) => whole.depths?.[0]?.[t] ?? 0));
      assertClose(await decoder.logits(0), whole.logits[0]!.at(-1)!, { relative: 2e-5, label: "logits" });
    },
  );

  gpuTest(
    `texts of different lengths together take the tokens that each takes alone: ${name}`,
    async (device) => {
      const model = modelOf(device, config);
      const prompts = [ids.slice(0, 3), ids.slice(5, 30), ids.slice(40, 41), ids.slice(50, 62)];
      using alone = new Decoder(device, { ...model, slots: 1, capacity: 40 });
      const wanted: DecodedToken[][] = [];
      for (const [seed, prompt] of prompts.entries()) {
        wanted.push(await continued(alone, { prompt, count: 9, sampling: { ...sampled, seed } }));
      }
      using together = new Decoder(device, { ...model, slots: 5, capacity: 40 });
      const slots = [3, 0, 4, 1];
      const met: DecodedToken[][] = prompts.map(() => []);
      for (const [i, prompt] of prompts.entries()) {
        met[i]!.push(await together.start(slots[i]!, { prompt, sampling: { ...sampled, seed: i } }));
      }
      // The third text pauses for some steps; several steps may share one read.
      for (
        const [active, count] of [
          [[0, 1, 2, 3], 2],
          [[0, 1, 3], 4],
          [[2, 0], 1],
          [[3, 2, 1, 0], 1],
          [[2], 4],
          [[1, 3], 1],
        ] as const
      ) {
        const steps = await together.step(active.map((i) => slots[i]!), { count });
        for (const step of steps) active.forEach((i, row) => met[i]!.push(step[row]!));
      }
      for (const [i, tokens] of met.entries()) {
        assertEquals(idsOf(tokens), idsOf(wanted[i]!), `text ${i}`);
        assertEquals(
          tokens.map(({ depth }) => depth),
          wanted[i]!.map(({ depth }) => depth),
          `depths of text ${i}`,
        );
      }
      // What a row computes does not depend on the others at all.
      assertEquals(met.map((tokens) => tokens.slice(1)), wanted.map((tokens) => tokens.slice(1)));
    },
  );
}

gpuTest("a slot is used again without traces of the text before", async (device) => {
  const model = modelOf(device, configs["expert choice"]!);
  using decoder = new Decoder(device, { ...model, slots: 2, capacity: 60 });
  const settings = { prompt: ids.slice(0, 7), count: 6, sampling: { ...sampled, repeatPenalty: 1.5 } };
  const first = await continued(decoder, { slot: 1, ...settings });
  await continued(decoder, { slot: 1, ...settings, prompt: ids.slice(100, 150), count: 9 });
  assertEquals(await continued(decoder, { slot: 1, ...settings }), first);
});

gpuTest("seeds decide what is sampled, and nothing else", async (device) => {
  const model = modelOf(device, configs["token choice"]!);
  using decoder = new Decoder(device, { ...model, slots: 1, capacity: 60 });
  const settings = { prompt: ids.slice(0, 5), count: 20 };
  const first = await continued(decoder, { ...settings, sampling: sampled });
  assertEquals(await continued(decoder, { ...settings, sampling: sampled }), first);
  const other = await continued(decoder, { ...settings, sampling: { ...sampled, seed: 6 } });
  assertNotEquals(idsOf(other), idsOf(first));
});

gpuTest("log-probabilities are the model's own, whatever the filters", async (device) => {
  const model = modelOf(device, configs["vanilla"]!);
  using decoder = new Decoder(device, { ...model, slots: 1, capacity: 20 });
  const prompt = ids.slice(0, 5);
  const sampling = { ...sampled, temperature: 0.5, topK: 3, repeatPenalty: 2 };
  const { id, logProbability } = await decoder.start(0, { prompt, sampling });
  const logits = await decoder.logits("prompt");
  const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
  assertClose([logProbability], [logits[id]! - Math.log(sum)], { relative: 1e-5, label: "log-probability" });
});

gpuTest("a forced token goes on with the text as told", async (device) => {
  const model = modelOf(device, configs["expert choice"]!);
  using decoder = new Decoder(device, { ...model, slots: 1, capacity: 20 });
  await decoder.start(0, { prompt: ids.slice(0, 5), sampling: greedy });
  for (const id of ids.slice(5, 9)) {
    decoder.force(0, id);
    await decoder.step([0]);
  }
  const whole = await forwardCausal(device, { model, input: { ids: [ids.slice(0, 9)], targets: null } });
  assertClose(await decoder.logits(0), whole.logits[0]!.at(-1)!, { relative: 2e-5, label: "logits" });
});

gpuTest("a decoder frees what it took", async (device) => {
  const model = modelOf(device, configs["token choice"]!);
  const before = device.memory.live;
  for (let i = 0; i < 3; i++) {
    using decoder = new Decoder(device, { ...model, slots: 2, capacity: 50 });
    await continued(decoder, { prompt: [1, 2], count: 2, sampling: greedy });
    assert(device.memory.live > before);
  }
  // Reading keeps a staging buffer or two.
  assert(device.memory.live - before < 100_000, `${device.memory.live - before} bytes stay`);
});

gpuTest("a decoder refuses empty and overlong texts, and more steps than it can keep", async (device) => {
  const model = modelOf(device, configs["vanilla"]!);
  using decoder = new Decoder(device, { ...model, slots: 1, capacity: 6 });
  const start = (prompt: number[]): Promise<DecodedToken> => decoder.start(0, { prompt, sampling: greedy });
  await assertRejects(() => start([]), ConfigError, "empty prompt");
  await assertRejects(
    () => start([1, 2, 3, 4, 5, 6, 7]),
    ConfigError,
    "prompt of 7 tokens: there is room for 6",
  );
  await start([1, 2, 3, 4]);
  await assertRejects(
    () => decoder.step([0], { count: 3 }),
    ConfigError,
    "token 7 of a text: there is room for 6",
  );
  await assertRejects(() => decoder.step([0], { count: 17 }), RangeError, "17 steps at once, at most 16");
  assertEquals((await decoder.step([0], { count: 2 })).length, 2);
  const capacity = 401;
  await assertRejects(
    () => Promise.resolve().then(() => new Decoder(device, { ...model, slots: 1, capacity })),
    ConfigError,
    "Cannot cache 401 tokens: the model has 400 positions",
  );
});

gpuTest("damaged weights are an error, not a token", async (device) => {
  const damaged = roundedModel(configs["vanilla"]!, { seed: 70 });
  damaged.weights.get("model.norm.weight")!.fill(NaN);
  using decoder = new Decoder(device, { ...uploadModel(device, damaged), slots: 1, capacity: 6 });
  await assertRejects(
    () => decoder.start(0, { prompt: [1], sampling: greedy }),
    RangeError,
    "weights are damaged",
  );
});
