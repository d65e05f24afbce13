/** Caches in f16: what the rounding of keys and values does to a model, and what it must not do. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import { planAllocator } from "../../gpu/memory.ts";
import { Decoder } from "../../model/decoder.ts";
import { forwardCausal, type Model } from "../../model/forward.ts";
import { generate } from "../../model/generate.ts";
import { allocateCache, cacheBytes, cacheBytesPerToken } from "../../model/kv_cache.ts";
import { GREEDY } from "../../model/sampling.ts";
import type { DecodedToken } from "../../model/slot_sampler.ts";
import { randomIds, tinyConfig } from "../reference/tiny_model.ts";
import { causalSchemes } from "../support/causal_schemes.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const tokens = 21;
const ids = Array.from(randomIds(tinyConfig(), { random: createRandom(91), count: tokens }));
const sampling = { ...GREEDY, seed: 0 };

/** Keys and values are off by up to 2^-11 of themselves in each of up to 8 layers, one after the other. */
const ROUNDING = 8 * 2 ** -11;

/** Other sums of a prompt's rows, off by 1e-7, may round one key in thousands to the other neighbour. */
const NEIGHBOUR = 1e-4;

/** Depth and logits by which the token after each of the text's is chosen, from the prompt's last token on. */
async function decoded(
  device: GpuDevice,
  { model, prompt }: { model: Model; prompt: number },
): Promise<{ depth: number; logits: Float32Array }[]> {
  using decoder = new Decoder(device, { ...model, slots: 1, capacity: tokens, kvDtype: "f16" });
  const { depth } = await decoder.start(0, { prompt: ids.slice(0, prompt), sampling });
  const rows = [{ depth, logits: await decoder.logits("prompt") }];
  for (const id of ids.slice(prompt)) {
    decoder.force(0, id);
    const [[token]] = await decoder.step([0]) as [[DecodedToken]];
    rows.push({ depth: token.depth, logits: await decoder.logits(0) });
  }
  return rows;
}

for (const [name, config] of Object.entries(causalSchemes)) {
  gpuTest(`decoding by an f16 cache = full forward but for rounding: ${name}`, async (device) => {
    const model = uploadModel(device, roundedModel(config, { seed: 90 }));
    const whole = await forwardCausal(device, { model, input: { ids: [ids], targets: null } });
    const steps = await decoded(device, { model, prompt: 1 });
    const deviations = steps.map(({ depth, logits }, t) => {
      assertEquals(depth, whole.depths?.[0]?.[t] ?? 0, `depth of token ${t}`);
      return assertClose(logits, whole.logits[0]![t]!, { relative: ROUNDING, label: `logits of token ${t}` });
    });
    assert(Math.max(...deviations) > 1e-5, "nothing was rounded");
    // Rows of one vector, of a tile, and all of them.
    for (const prompt of [9, 17, tokens]) {
      for (const [i, { depth, logits }] of (await decoded(device, { model, prompt })).entries()) {
        const { depth: wantedDepth, logits: wanted } = steps[prompt - 1 + i]!;
        assertEquals(depth, wantedDepth);
        assertClose(logits, wanted, { relative: NEIGHBOUR, label: `token ${prompt - 1 + i} of ${prompt}` });
      }
    }
  });
}

gpuTest("texts together in an f16 cache get the bits that each gets alone", async (device) => {
  const model = uploadModel(device, roundedModel(causalSchemes["token choice"]!, { seed: 92 }));
  const prompts = [ids.slice(0, 3), ids.slice(4, 5), ids.slice(6, 20)];
  const shape = { capacity: 30, kvDtype: "f16" } as const;
  using alone = new Decoder(device, { ...model, ...shape, slots: 1 });
  using together = new Decoder(device, { ...model, ...shape, slots: 4 });
  const wanted: DecodedToken[][] = [];
  const met: DecodedToken[][] = [];
  for (const [i, prompt] of prompts.entries()) {
    met.push([await together.start(3 - i, { prompt, sampling })]);
    const first = await alone.start(0, { prompt, sampling });
    wanted.push([first, ...(await alone.step([0], { count: 9 })).flat()]);
  }
  for (const step of await together.step([3, 2, 1], { count: 9 })) {
    step.forEach((token, i) => met[i]!.push(token));
  }
  assertEquals(met, wanted);
});

/** A model whose keys or values are beyond f16 and well within f32. */
function farModel(device: GpuDevice, projection: "k_proj" | "v_proj"): Model {
  const far = roundedModel(causalSchemes["vanilla"]!, { seed: 93 });
  const weight = far.weights.get(`model.layers.1.self_attn.${projection}.weight`)!;
  weight.forEach((value, i) => weight[i] = Math.fround(value * 1e7));
  return uploadModel(device, far);
}

for (const projection of ["k_proj", "v_proj"] as const) {
  gpuTest(`numbers of ${projection} that f16 cannot hold are an error that says so`, async (device) => {
    const model = farModel(device, projection);
    const texts = { "one token": ids.slice(0, 1), "a tile of them": ids };
    for (const [name, prompt] of Object.entries(texts)) {
      const generated = (kvDtype: KvDtype): Promise<unknown[]> => {
        const limits = { count: 2, logProbabilities: 0, endTokens: [], seed: 0 };
        return Array.fromAsync(generate(device, model, { prompt, sampling: GREEDY, ...limits, kvDtype }));
      };
      assertEquals((await generated("f32")).length, 2, name);
      await assertRejects(
        () => generated("f16"),
        RangeError,
        "Cannot choose a token: the logits are not numbers; the model's weights are damaged, " +
          "or its keys and values go beyond 65504, the largest in f16; use --kv-dtype f32",
      );
    }
  });
}

gpuTest("a number that f16 cannot hold in a late step is an error, too", async (device) => {
  const far = roundedModel(causalSchemes["vanilla"]!, { seed: 93 });
  const { hiddenSize } = far.config;
  // Only token 10 has anything in the entry that makes a far key.
  const embedding = far.weights.get("model.embed_tokens.weight")!;
  for (let id = 0; id < 11; id++) embedding[id * hiddenSize] = id === 10 ? 1 : 0;
  const weight = far.weights.get("model.layers.0.self_attn.k_proj.weight")!;
  for (let i = 0; i < weight.length; i += hiddenSize) weight[i] = 1e7;
  using decoder = new Decoder(device, { ...uploadModel(device, far), slots: 1, capacity: 9, kvDtype: "f16" });
  await decoder.start(0, { prompt: [1, 2, 3], sampling });
  decoder.force(0, 4);
  await decoder.step([0]);
  decoder.force(0, 10);
  await assertRejects(() => decoder.step([0]), RangeError, "use --kv-dtype f32");
});

Deno.test("a cache in f16 takes half the bytes of one in f32, and the formulas say so", () => {
  const counts = { tokens: 100, active: [100, 60, 20] };
  for (const config of Object.values(causalSchemes)) {
    const allocated = (kvDtype?: KvDtype): number => {
      const cache = allocateCache(planAllocator(), {
        config,
        slots: 2,
        capacity: 20,
        ...(kvDtype && { kvDtype }),
      });
      const pools = new Set([...cache.first, ...cache.steps.flat(), ...cache.last].map(({ pool }) => pool));
      return [...pools].reduce((sum, { buffer }) => sum + buffer.size, 0);
    };
    assertEquals(allocated("f16"), allocated("f32") / 2);
    assertEquals(allocated(), allocated("f32"));
    assertEquals(cacheBytes(config, { ...counts, kvDtype: "f16" }), cacheBytes(config, counts) / 2);
    assertEquals(cacheBytesPerToken(config, { kvDtype: "f16" }), cacheBytesPerToken(config) / 2);
  }
});
