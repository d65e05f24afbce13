import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { forwardCausal, greedyContinuation } from "../../model/forward.ts";
import { CausalForward, generate, type GeneratedToken, type GenerateOptions } from "../../model/generate.ts";
import { sampleToken } from "../../model/sampler.ts";
import { randomIds, tinyConfig, tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { goldenNames, goldenValues, readGolden } from "../support/golden.ts";
import { goldenModel, roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;

/** Long enough for three recorded lengths: 64, 128 and, instead of 256, all positions. */
const positions = { maxPositionEmbeddings: 140 };

const configs: Record<string, ModelConfig> = {
  "vanilla": tinyConfig(positions),
  "recursive": tinyRecursiveConfig(middleCycle, positions),
  "expert choice": tinyRecursiveConfig(middleCycle, { ...positions, router: tinyRouter({ alpha: 1 }) }),
};
const routed = configs["expert choice"]!;

const ids = Array.from(randomIds(tinyConfig(), { random: createRandom(32), count: 140 }));

const greedy: GenerateOptions = {
  prompt: ids.slice(0, 5),
  count: 8,
  sampling: { temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 1 },
  seed: 1,
  logProbabilities: 0,
  endOfText: null,
};
const sampled = { ...greedy, sampling: { ...greedy.sampling, temperature: 1 } };

function causalForward(device: GpuDevice, config: ModelConfig): CausalForward {
  return new CausalForward(device, uploadModel(device, roundedModel(config, { seed: 31 })));
}

function tokensOf(forward: CausalForward, options: GenerateOptions): Promise<GeneratedToken[]> {
  return Array.fromAsync(generate(forward, options));
}

function idsOf(tokens: readonly GeneratedToken[]): number[] {
  return tokens.map(({ id }) => id);
}

for (const name of goldenNames) {
  gpuTest(`greedy decoding appends the tokens of golden case ${name}`, async (device) => {
    const golden = readGolden(name);
    const prompt = Array.from(goldenValues(golden, "greedy_prompt"));
    const expected = Array.from(goldenValues(golden, "greedy_ids"));
    const model = uploadModel(device, goldenModel(golden));
    assertEquals(await greedyContinuation(device, { model, prompt, count: expected.length }), expected);
  });
}

for (const [name, config] of Object.entries(configs)) {
  gpuTest(
    `CausalForward equals a forward pass of just that length, at any recorded length: ${name}`,
    async (device) => {
      const model = uploadModel(device, roundedModel(config, { seed: 31 }));
      const forward = new CausalForward(device, model);
      // Up, where a longer program is recorded, and down again, over what the longer texts left.
      for (const length of [1, 63, 64, 65, 128, 129, 140, 64, 2]) {
        const text = ids.slice(0, length);
        const { logits, depth } = await forward.run(text);
        const whole = await forwardCausal(device, { model, input: { ids: [text], targets: null } });
        assertEquals(logits.length, config.vocabSize);
        assertClose(logits, whole.logits[0]!.at(-1)!, { relative: 1e-6, label: `logits after ${length}` });
        assertEquals(depth, whole.depths?.[0]?.at(-1) ?? 0, `depth after ${length}`);
      }
    },
  );

  for (const length of [63, 64, 65]) {
    gpuTest(
      `generate takes the likeliest token of each longer text, from ${length} tokens on: ${name}`,
      async (device) => {
        const model = uploadModel(device, roundedModel(config, { seed: 31 }));
        const text = ids.slice(0, length);
        const generated = await tokensOf(new CausalForward(device, model), {
          ...greedy,
          prompt: text,
          count: 3,
        });
        const wanted: { id: number; depth: number }[] = [];
        for (let i = 0; i < 3; i++) {
          const { logits, depths } = await forwardCausal(device, {
            model,
            input: { ids: [text], targets: null },
          });
          const last = logits[0]!.at(-1)!;
          wanted.push({ id: last.indexOf(Math.max(...last)), depth: depths?.[0]?.at(-1) ?? 0 });
          text.push(wanted[i]!.id);
        }
        assertEquals(generated.map(({ id, depth }) => ({ id, depth })), wanted);
      },
    );
  }
}

gpuTest("CausalForward frees a program that a longer one replaces", async (device) => {
  const forward = causalForward(device, routed);
  const used: number[] = [];
  for (const length of [3, 70, 3, 128]) {
    await forward.run(ids.slice(0, length));
    used.push(device.memory.live);
  }
  assert(used[1]! > used[0]!);
  assertEquals(used.slice(2), [used[1], used[1]]);
  await forward.run(ids);
  assert(device.memory.live < used[1]! + (used[1]! - used[0]!));
});

gpuTest("the same seed samples the same tokens, another seed others", async (device) => {
  const forward = causalForward(device, routed);
  const options = { ...sampled, count: 24 };
  const first = await tokensOf(forward, options);
  assertEquals(await tokensOf(forward, options), first);
  assertNotEquals(idsOf(await tokensOf(forward, { ...options, seed: 2 })), idsOf(first));
});

gpuTest("generate gives log-probabilities of the token and the alternatives asked for", async (device) => {
  const forward = causalForward(device, routed);
  const [token] = await tokensOf(forward, { ...sampled, count: 1, logProbabilities: 11 });
  const total = token!.top.reduce((sum, { logProbability }) => sum + Math.exp(logProbability), 0);
  assertAlmostEquals(total, 1, 1e-6);
  assertEquals(token!.top.find(({ id }) => id === token!.id)!.logProbability, token!.logProbability);
  const sorted = token!.top.map(({ logProbability }) => logProbability);
  assertEquals(sorted, sorted.toSorted((a, b) => b - a));
});

gpuTest("generate ends before the end of text, and after count tokens", async (device) => {
  const forward = causalForward(device, routed);
  const all = idsOf(await tokensOf(forward, { ...sampled, count: 20 }));
  assertEquals(all.length, 20);
  const endOfText = all[7]!;
  assertEquals(
    idsOf(await tokensOf(forward, { ...sampled, count: 20, endOfText })),
    all.slice(0, all.indexOf(endOfText)),
  );
  assertEquals(await tokensOf(forward, { ...greedy, count: 0 }), []);
});

gpuTest("a repeat penalty applies to the prompt's tokens and to generated ones", async (device) => {
  const forward = causalForward(device, routed);
  const options = { ...greedy.sampling, repeatPenalty: 3 };
  const text = [3];
  for (let i = 0; i < 8; i++) {
    const { logits } = await forward.run(text);
    text.push(sampleToken(logits, { options, seen: new Set(text), next: () => 0 }));
  }
  const generated = idsOf(await tokensOf(forward, { ...greedy, prompt: [3], sampling: options }));
  assertEquals(generated, text.slice(1));
  assertNotEquals(generated, idsOf(await tokensOf(forward, { ...greedy, prompt: [3] })));
});

gpuTest("generate refuses an empty prompt and more tokens than the model has positions", async (device) => {
  const forward = causalForward(device, routed);
  await assertRejects(() => tokensOf(forward, { ...greedy, prompt: [] }), ConfigError, "empty prompt");
  await assertRejects(
    () => tokensOf(forward, { ...greedy, prompt: [...ids, 1] }),
    ConfigError,
    "Cannot run 141 tokens: the model has 140 positions",
  );
  const generated: number[] = [];
  await assertRejects(
    async () => {
      for await (const { id } of generate(forward, { ...greedy, prompt: ids.slice(2) })) generated.push(id);
    },
    ConfigError,
    "141 tokens",
  );
  assertEquals(generated.length, 3);
});
