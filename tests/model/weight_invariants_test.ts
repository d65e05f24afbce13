/** Properties that any correct Mixture-of-Recursions model has, by name: what its weights and losses mean. */
import { assert, assertAlmostEquals, assertEquals, assertNotEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { capacityWarmup, keptTokens } from "../../model/config.ts";
import { forwardCausal, forwardTopK } from "../../model/forward.ts";
import { parameterCount } from "../../model/parameters.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";
import type { Model } from "../reference/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { readTensors } from "../support/golden.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { ids, middleCycle, pass, routedModel, tokenModel, withConfig } from "../support/invariant_models.ts";

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
