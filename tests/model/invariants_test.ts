/** Properties that any correct Mixture-of-Recursions model has, by name, shown on the device; those of caches apart. */
import { assert, assertAlmostEquals, assertEquals, assertNotEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { capacityWarmup, type ExpertChoiceConfig, keptTokens, type ModelConfig } from "../../model/config.ts";
import { forwardCausal, type ForwardInput, type ForwardResult, forwardTopK } from "../../model/forward.ts";
import { parameterCount } from "../../model/parameters.ts";
import {
  randomIds,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";
import type { Model } from "../reference/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { readTensors } from "../support/golden.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const tokens = 13;
const flatIds = Array.from(randomIds(tinyConfig(), { random: createRandom(81), count: 2 * tokens }));
const ids = [flatIds.slice(0, tokens), flatIds.slice(tokens)];

function routedModel(changes: Partial<ExpertChoiceConfig> = {}): Model {
  const config = tinyRecursiveConfig(middleCycle, { router: tinyRouter({ alpha: 1, ...changes }) });
  return roundedModel(config, { seed: 80 });
}

function tokenModel(changes: Partial<ModelConfig> = {}): Model {
  const config = tinyRecursiveConfig(middleCycle, { router: tinyTokenRouter(), ...changes });
  return roundedModel(config, { seed: 85 });
}

function withConfig({ weights }: Model, config: ModelConfig): Model {
  return { weights, config };
}

const passes = { "causal": forwardCausal, "top-k": forwardTopK };

function pass(
  device: GpuDevice,
  { model, ids, routing }: { model: Model; ids: ForwardInput["ids"]; routing: keyof typeof passes },
): Promise<ForwardResult> {
  const input = { ids, targets: null };
  return passes[routing](device, { model: uploadModel(device, model), input, gradientsPath: null });
}

/** Gradients of the total loss, by weight. */
async function gradientsOf(
  device: GpuDevice,
  model: Model,
): Promise<ReadonlyMap<string, { data: ArrayLike<number> }>> {
  const gradientsPath = await Deno.makeTempFile({ suffix: ".safetensors" });
  try {
    const input = { ids, targets: ids.map((row) => row.toReversed()) };
    await forwardTopK(device, { model: uploadModel(device, model), input, gradientsPath });
    return readTensors(new URL(`file://${gradientsPath}`));
  } finally {
    await Deno.remove(gradientsPath);
  }
}

/** A recursive model's weights as a vanilla model has them: a copy of the block for each recursion. */
function unrolled(model: Model): Model {
  const layers = model.config.numHiddenLayers;
  const weights = new Map<string, Float64Array>();
  for (const [name, weight] of model.weights) {
    const [, layer, rest] = /^model\.layers\.(\d+)\.(.*)$/.exec(name) ?? [];
    const copies = layer === undefined
      ? [name]
      : (layer === "0" ? [0] : layer === "2" ? [layers - 1] : [1, 2, 3]).map((l) =>
        `model.layers.${l}.${rest}`
      );
    for (const copy of copies) weights.set(copy, weight.slice());
  }
  return { weights, config: tinyConfig({ numHiddenLayers: layers }) };
}

Deno.test("tying: the number of unique parameters follows the formula", () => {
  const [c, f, h, g, d, v] = [8, 12, 2, 1, 4, 11];
  const layer = 2 * c * h * d + 2 * c * g * d + 3 * c * f + 2 * c;
  const expected = (1 + 2) * layer + c + v * c;
  assertEquals(parameterCount(tinyRecursiveConfig(middleCycle)), expected);
  assertEquals(parameterCount(routedModel().config), expected + 3 * c);
  assertEquals(parameterCount(tokenModel().config), expected + 3 * c);
});

gpuTest(
  "tying: a shared weight's gradient is the sum of its recursions', attention included",
  async (device) => {
    const model = withConfig(routedModel(), tinyRecursiveConfig(middleCycle));
    const shared = await gradientsOf(device, model);
    const copies = await gradientsOf(device, unrolled(model));
    for (
      const name of [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.up_proj",
      ]
    ) {
      const of = (layer: number): number[] =>
        Array.from(copies.get(`model.layers.${layer}.${name}.weight`)!.data);
      const sum = of(1).map((value, i) => value + of(2)[i]! + of(3)[i]!);
      const { data } = shared.get(`model.layers.1.${name}.weight`)!;
      assertClose(data, sum, { relative: 1e-4, measure: "norm", label: name });
      assertNotEquals(of(1), of(2));
    }
  },
);

gpuTest("tying: an altered block weight changes every recursion", async (device) => {
  const model = withConfig(routedModel(), tinyRecursiveConfig(middleCycle));
  const name = "self_attn.o_proj.weight";
  const altered = structuredClone(model);
  altered.weights.get(`model.layers.1.${name}`)![3]! += 0.5;
  const { logits } = await pass(device, { model: altered, ids, routing: "causal" });
  const everywhere = unrolled(altered);
  const all = await pass(device, { model: everywhere, ids, routing: "causal" });
  assertClose(logits.flat(2), all.logits.flat(2), { relative: 1e-5, label: "logits" });
  for (const layer of [1, 2, 3]) {
    const missing = structuredClone(everywhere);
    missing.weights.get(`model.layers.${layer}.${name}`)![3]! -= 0.5;
    assertNotEquals((await pass(device, { model: missing, ids, routing: "causal" })).logits, all.logits);
  }
});

gpuTest("recursive equivalence: replace at full depth equals the recursive baseline", async (device) => {
  const routed = routedModel({ gating: "replace", capacities: [1, 1, 1] });
  const plain = withConfig(routed, tinyRecursiveConfig(middleCycle));
  const baseline = await pass(device, { model: plain, ids, routing: "top-k" });
  const full = await pass(device, { model: routed, ids, routing: "top-k" });
  assertEquals(full.depths, baseline.depths);
  assertClose(full.logits.flat(2), baseline.logits.flat(2), { relative: 1e-5, label: "expert choice" });
  // A bias far above all probabilities sends every token to the last depth.
  const deep = tokenModel({ router: tinyTokenRouter({ gating: "replace", balancing: "loss_free" }) });
  deep.weights.get("model.router.bias")!.set([0, 0, 5]);
  const byDepth = await pass(device, { model: deep, ids, routing: "causal" });
  const loop = await pass(device, { model: withConfig(deep, plain.config), ids, routing: "causal" });
  assertEquals(byDepth.depths, loop.depths);
  assertClose(byDepth.logits.flat(2), loop.logits.flat(2), { relative: 1e-5, label: "token choice" });
});

for (const routing of ["causal", "top-k"] as const) {
  gpuTest(`N = 1: replace equals a vanilla Transformer of the same weights, ${routing}`, async (device) => {
    const recursion = { sharing: "middle_cycle", numRecursions: 1, blockLayers: 2 } as const;
    for (const router of [tinyRouter({ gating: "replace" }), tinyTokenRouter({ gating: "replace" }), null]) {
      const model = roundedModel(tinyRecursiveConfig(recursion, { router }), { seed: 82 });
      const vanilla = withConfig(model, tinyConfig({ numHiddenLayers: 4 }));
      const wanted = await pass(device, { model: vanilla, ids, routing });
      const { logits } = await pass(device, { model, ids, routing });
      assertClose(logits.flat(2), wanted.logits.flat(2), { relative: 1e-5, label: "logits" });
    }
  });
}

const sharedKeys = { kvCache: "shared" } as const;
const causal: Record<string, Model> = {
  "vanilla": roundedModel(tinyConfig(), { seed: 83 }),
  "recursive": withConfig(routedModel(), tinyRecursiveConfig(middleCycle)),
  "recursive, shared keys": withConfig(routedModel(), tinyRecursiveConfig(middleCycle, sharedKeys)),
  "expert choice by threshold": routedModel(),
  "expert choice by threshold in every step": routedModel({ capacities: [0.9, 0.5, 0.2] }),
  "expert choice by threshold, shared keys": withConfig(routedModel(), {
    ...routedModel().config,
    ...sharedKeys,
  }),
  "expert choice by an auxiliary router": roundedModel(
    tinyRecursiveConfig(middleCycle, { router: tinyRouter({ alpha: 1, auxiliary: "router" }) }),
    { seed: 80 },
  ),
  "token choice": tokenModel(),
  "token choice, shared keys": tokenModel(sharedKeys),
};

for (const [name, model] of Object.entries(causal)) {
  gpuTest(`causality: an edited token leaves all earlier logits bit-identical, ${name}`, async (device) => {
    const row = ids[0]!;
    const { logits: [logits] } = await pass(device, { model, ids: [row], routing: "causal" });
    for (const edited of [0, 1, 6, 12]) {
      const changed = row.with(edited, (row[edited]! + 1) % model.config.vocabSize);
      const { logits: [other] } = await pass(device, { model, ids: [changed], routing: "causal" });
      assertEquals(other!.slice(0, edited), logits!.slice(0, edited));
      assertNotEquals(other![edited], logits![edited]);
    }
  });
}

gpuTest("causality: top-k fails it, a later token can push an earlier one out", async (device) => {
  const recursion = { sharing: "cycle", numRecursions: 1, blockLayers: 1 } as const;
  const config = tinyRecursiveConfig(recursion, { router: tinyRouter({ alpha: 1, capacities: [0.5] }) });
  const model = roundedModel(config, { seed: 84 });
  // The router reads the first entry of the embedding, which is the token's id.
  model.weights.get("model.routers.0.weight")!.fill(0)[0] = 1;
  for (let id = 0; id < config.vocabSize; id++) {
    model.weights.get("model.embed_tokens.weight")![id * config.hiddenSize] = id;
  }
  const alone = await pass(device, { model, ids: [[5, 1]], routing: "top-k" });
  const pushed = await pass(device, { model, ids: [[5, 9]], routing: "top-k" });
  assertEquals([alone.depths, pushed.depths], [[[1, 0]], [[0, 1]]]);
  assertNotEquals(alone.logits[0]![0], pushed.logits[0]![0]);
});

gpuTest("causality: a logit of exactly 0 ends a token's recursion", async (device) => {
  const model = routedModel();
  for (let r = 0; r < 3; r++) model.weights.get(`model.routers.${r}.weight`)!.fill(0);
  const { depths } = await pass(device, { model, ids, routing: "causal" });
  assertEquals(depths, ids.map((row) => row.map(() => 1)));
});

for (const capacities of [null, [0.8, 0.8, 0.05]]) {
  gpuTest(
    `nesting: top-k steps are nested, ascending and of the wanted size, ${capacities}`,
    async (device) => {
      const model = routedModel({ capacities });
      const { selected, depths } = await pass(device, { model, ids, routing: "top-k" });
      const sizes = capacities ? [10, 10, 1] : [13, 8, 4];
      selected!.forEach((step, r) =>
        step.forEach((positions, b) => {
          assertEquals(positions.length, sizes[r]);
          assertEquals(positions, [...new Set(positions)].sort((one, other) => one - other));
          assert(r === 0 || positions.every((position) => selected![r - 1]![b]!.includes(position)));
          for (const position of positions) assert(depths![b]![position]! > r);
        })
      );
    },
  );
}

gpuTest(
  "nesting: token choice's active tokens sum to the depths, and all run the first step",
  async (device) => {
    const { selected, depths } = await pass(device, { model: tokenModel(), ids, routing: "causal" });
    const active = selected!.map((step) => step.flat().length);
    assertEquals(active[0], 2 * tokens);
    assertEquals(
      active.reduce((sum, count) => sum + count, 0),
      depths!.flat().reduce((sum, depth) => sum + depth, 0),
    );
  },
);

gpuTest("losses: routers get no gradient where nothing asks their opinion", async (device) => {
  for (const gating of ["additive", "replace"] as const) {
    const expert = await gradientsOf(device, routedModel({ gating, auxiliary: "none" }));
    for (let r = 0; r < 3; r++) {
      assert(Array.from(expert.get(`model.routers.${r}.weight`)!.data).every((value) => value === 0));
    }
    const router = tinyTokenRouter({ gating, balancing: "none", zCoefficient: 0 });
    const token = await gradientsOf(device, tokenModel({ router }));
    assert(Array.from(token.get("model.router.weight")!.data).every((value) => value === 0));
  }
});

gpuTest("losses: a uniform router has balancing loss alpha, a collapsed one N", async (device) => {
  async function balancingOf(model: Model): Promise<number> {
    const input = { ids, targets: ids };
    const { losses } = await forwardCausal(device, { model: uploadModel(device, model), input });
    return losses!.balancing!;
  }
  const uniform = tokenModel();
  uniform.weights.get("model.router.weight")!.fill(0);
  assertAlmostEquals(await balancingOf(uniform), 1, 1e-6);
  const sigmoid = tokenModel({ router: tinyTokenRouter({ function: "sigmoid" }) });
  sigmoid.weights.get("model.router.weight")!.fill(0);
  assertAlmostEquals(await balancingOf(sigmoid), 3 / 2, 1e-6);
  // Every embedding begins with the same large entry, which the router's second output reads.
  const collapsed = tokenModel({ recursion: { ...middleCycle, sharing: "cycle" }, numHiddenLayers: 3 });
  for (let id = 0; id < 11; id++) collapsed.weights.get("model.embed_tokens.weight")![id * 8] = 60;
  collapsed.weights.get("model.router.weight")!.fill(0)[8] = 1;
  assertAlmostEquals(await balancingOf(collapsed), 3, 1e-6);
});

for (const routing of ["causal", "top-k"] as const) {
  gpuTest(
    `batch independence: a row does not depend on the others, nor on their lengths, ${routing}`,
    async (device) => {
      const ragged = [ids[0]!, ids[1]!.slice(0, 5), ids[1]!.slice(3, 4), ids[1]!];
      for (const model of [routedModel(), tokenModel(), tokenModel(sharedKeys)]) {
        const { logits, depths } = await pass(device, { model, ids: ragged, routing });
        for (const [b, row] of ragged.entries()) {
          const alone = await pass(device, { model, ids: [row], routing });
          assertEquals(alone.depths, [depths![b]!]);
          // Where a sequence starts among the packed rows decides which keys attention adds up together: rounding.
          assertClose(alone.logits.flat(2), logits[b]!.flat(), { relative: 1e-6, label: "logits" });
        }
      }
    },
  );
}

Deno.test("capacity warm-up: from 1 at the first step down to the capacity, monotone", () => {
  const steps = 40;
  const warmups = Array.from({ length: steps + 2 }, (_, t) => capacityWarmup(t, { steps }));
  assertEquals([warmups[0], warmups[steps], warmups[steps + 1]], [1, 0, 0]);
  assertAlmostEquals(warmups[steps / 2]!, 0.5);
  assertEquals(warmups, warmups.toSorted((a, b) => b - a));
  assertEquals(capacityWarmup(0, { steps: 0 }), 0);
  for (const capacities of [null, [1, 0.5, 0.1]]) {
    const router = tinyRouter({ capacities });
    const kept = warmups.map((warmup) => keptTokens(router, { numRecursions: 3, tokens: 100, warmup }));
    assertEquals(kept[0], [100, 100, 100]);
    assertEquals(kept[steps], capacities ? [100, 50, 10] : [100, 66, 33]);
    kept.slice(1).forEach((counts, t) => counts.forEach((count, r) => assert(count <= kept[t]![r]!)));
  }
});

gpuTest("a pass gives the same bits every time", async (device) => {
  for (const routing of ["causal", "top-k"] as const) {
    for (const model of [routedModel(), tokenModel(sharedKeys)]) {
      const first = await pass(device, { model, ids, routing });
      assertEquals(await pass(device, { model, ids, routing }), first);
    }
  }
});
