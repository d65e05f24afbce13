import { assertAlmostEquals, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { forwardCausal, greedyContinuation, greedyRecomputed, type Model } from "../../model/forward.ts";
import { generate, type GeneratedToken, type GenerateOptions, tokenRoom } from "../../model/generate.ts";
import { GREEDY } from "../../model/sampling.ts";
import { randomIds, tinyConfig, tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import { gpuTest } from "../support/device.ts";
import { goldenNames, goldenValues, readGolden } from "../support/golden.ts";
import { goldenModel, roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const positions = { maxPositionEmbeddings: 60 };
const routed: ModelConfig = tinyRecursiveConfig(middleCycle, {
  ...positions,
  router: tinyRouter({ alpha: 1 }),
});
const ids = Array.from(randomIds(tinyConfig(), { random: createRandom(32), count: 60 }));

const greedy: GenerateOptions = {
  prompt: ids.slice(0, 5),
  count: 8,
  sampling: GREEDY,
  seed: 1,
  logProbabilities: 0,
  endTokens: [],
};
const sampled = { ...greedy, sampling: { ...GREEDY, temperature: 1 } };

function modelOf(device: GpuDevice): Model {
  return uploadModel(device, roundedModel(routed, { seed: 31 }));
}

function tokensOf(
  device: GpuDevice,
  { model, options }: { model: Model; options: GenerateOptions },
): Promise<GeneratedToken[]> {
  return Array.fromAsync(generate(device, model, options));
}

function idsOf(tokens: readonly GeneratedToken[]): number[] {
  return tokens.map(({ id }) => id);
}

for (const name of goldenNames) {
  gpuTest(`greedy decoding appends the tokens of golden case ${name}, cached or not`, async (device) => {
    const golden = readGolden(name);
    const prompt = Array.from(goldenValues(golden, "greedy_prompt"));
    const expected = Array.from(goldenValues(golden, "greedy_ids"));
    const model = uploadModel(device, goldenModel(golden));
    const settings = { model, prompt, count: expected.length };
    assertEquals(await greedyContinuation(device, settings), expected);
    assertEquals(await greedyRecomputed(device, settings), expected);
  });
}

gpuTest("each token has the depth of the token before it", async (device) => {
  const model = modelOf(device);
  const tokens = await tokensOf(device, { model, options: sampled });
  const text = [...greedy.prompt, ...idsOf(tokens)];
  const { depths } = await forwardCausal(device, { model, input: { ids: [text], targets: null } });
  assertEquals(tokens.map(({ depth }) => depth), depths![0]!.slice(4, -1));
});

gpuTest("the same seed samples the same tokens, another seed others", async (device) => {
  const model = modelOf(device);
  const options = { ...sampled, count: 24 };
  const first = await tokensOf(device, { model, options });
  assertEquals(await tokensOf(device, { model, options }), first);
  assertNotEquals(idsOf(await tokensOf(device, { model, options: { ...options, seed: 2 } })), idsOf(first));
});

gpuTest("generate gives log-probabilities of the token and the alternatives asked for", async (device) => {
  const options = { ...sampled, count: 3, logProbabilities: 11 };
  for (const token of await tokensOf(device, { model: modelOf(device), options })) {
    const total = token.top.reduce((sum, { logProbability }) => sum + Math.exp(logProbability), 0);
    assertAlmostEquals(total, 1, 1e-6);
    const { logProbability } = token.top.find(({ id }) => id === token.id)!;
    assertAlmostEquals(token.logProbability, logProbability, 1e-5);
    const sorted = token.top.map(({ logProbability }) => logProbability);
    assertEquals(sorted, sorted.toSorted((a, b) => b - a));
  }
});

gpuTest("generate ends before the end of text, and after count tokens", async (device) => {
  const model = modelOf(device);
  const all = idsOf(await tokensOf(device, { model, options: { ...sampled, count: 20 } }));
  assertEquals(all.length, 20);
  const end = all[7]!;
  const options = { ...sampled, count: 20, endTokens: [999, end] };
  assertEquals(idsOf(await tokensOf(device, { model, options })), all.slice(0, all.indexOf(end)));
  assertEquals(await tokensOf(device, { model, options: { ...greedy, count: 0 } }), []);
});

gpuTest("a repeat penalty applies to the prompt's tokens and to generated ones", async (device) => {
  const model = modelOf(device);
  const penalty = 3;
  const text = [3];
  for (let i = 0; i < 8; i++) {
    const { logits } = await forwardCausal(device, { model, input: { ids: [text], targets: null } });
    const penalised = logits[0]!.at(-1)!.map((logit, id) =>
      !text.includes(id) ? logit : logit > 0 ? logit / penalty : logit * penalty
    );
    text.push(penalised.indexOf(Math.max(...penalised)));
  }
  const options = { ...greedy, prompt: [3], sampling: { ...GREEDY, repeatPenalty: penalty } };
  assertEquals(idsOf(await tokensOf(device, { model, options })), text.slice(1));
  const plain = { ...greedy, prompt: [3] };
  assertNotEquals(idsOf(await tokensOf(device, { model, options: plain })), text.slice(1));
});

gpuTest(
  "generate stops where the model's positions end, and refuses a prompt that goes past them",
  async (device) => {
    const model = modelOf(device);
    const prompt = ids.slice(2);
    assertEquals(tokenRoom(routed, { prompt }), 3);
    const tokens = await tokensOf(device, { model, options: { ...greedy, prompt, count: 50 } });
    assertEquals(idsOf(tokens), await greedyRecomputed(device, { model, prompt, count: 3 }));
    const full = await tokensOf(device, { model, options: { ...greedy, prompt: ids, count: 50 } });
    assertEquals(full.length, 1);
    const overlong = { ...greedy, prompt: [...ids, 1] };
    await assertRejects(
      () => tokensOf(device, { model, options: overlong }),
      ConfigError,
      "the prompt has 61 tokens, the model 60 positions",
    );
    await assertRejects(
      () => tokensOf(device, { model, options: { ...greedy, prompt: [] } }),
      ConfigError,
      "empty",
    );
  },
);
