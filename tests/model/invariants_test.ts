/** Properties that any correct Mixture-of-Recursions model has, shown on the device. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import type { ExpertChoiceConfig, ModelConfig } from "../../model/config.ts";
import { forwardCausal, type ForwardInput, type ForwardResult, forwardTopK } from "../../model/forward.ts";
import { randomIds, tinyConfig, tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import type { Model } from "../reference/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
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

const causal: Record<string, Model> = {
  "vanilla": roundedModel(tinyConfig(), { seed: 83 }),
  "recursive": withConfig(routedModel(), tinyRecursiveConfig(middleCycle)),
  "expert choice by threshold": routedModel(),
  "expert choice by threshold in every step": routedModel({ capacities: [0.9, 0.5, 0.2] }),
};

for (const [name, model] of Object.entries(causal)) {
  gpuTest(`editing a token leaves all earlier logits bit-identical: ${name}`, async (device) => {
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

gpuTest("top-k choice is not causal: a later token can push an earlier one out", async (device) => {
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

for (const routing of ["causal", "top-k"] as const) {
  gpuTest(
    `a sequence's logits do not depend on the other sequences of the batch: ${routing}`,
    async (device) => {
      const model = routedModel();
      const { logits, depths } = await pass(device, { model, ids, routing });
      for (const b of [0, 1]) {
        const alone = await pass(device, { model, ids: [ids[b]!], routing });
        assertEquals(alone.depths, [depths![b]!]);
        // Where a sequence starts among the packed rows decides which keys attention adds up together: rounding.
        assertClose(alone.logits.flat(2), logits[b]!.flat(), { relative: 1e-6, label: "logits" });
      }
    },
  );

  gpuTest(
    `one recursion with replace equals a vanilla Transformer of the same weights: ${routing}`,
    async (device) => {
      const recursion = { sharing: "middle_cycle", numRecursions: 1, blockLayers: 2 } as const;
      const config = tinyRecursiveConfig(recursion, { router: tinyRouter({ gating: "replace" }) });
      const model = roundedModel(config, { seed: 82 });
      const vanilla = await pass(device, {
        model: withConfig(model, tinyConfig({ numHiddenLayers: 4 })),
        ids,
        routing,
      });
      const { logits } = await pass(device, { model, ids, routing });
      assertClose(logits.flat(2), vanilla.logits.flat(2), { relative: 1e-5, label: "logits" });
    },
  );
}

gpuTest("replace at full depth equals the recursive baseline", async (device) => {
  const model = routedModel({ gating: "replace", capacities: [1, 1, 1] });
  const plain = withConfig(model, tinyRecursiveConfig(middleCycle));
  const baseline = await pass(device, { model: plain, ids, routing: "top-k" });
  const routed = await pass(device, { model, ids, routing: "top-k" });
  assertEquals(routed.depths, baseline.depths);
  assertClose(routed.logits.flat(2), baseline.logits.flat(2), { relative: 1e-5, label: "logits" });
});

gpuTest("a logit of exactly 0 ends a token's recursion in causal routing", async (device) => {
  const model = routedModel();
  for (let r = 0; r < 3; r++) model.weights.get(`model.routers.${r}.weight`)!.fill(0);
  const { depths } = await pass(device, { model, ids, routing: "causal" });
  assertEquals(depths, ids.map((row) => row.map(() => 1)));
});

for (const capacities of [null, [0.8, 0.8, 0.05]]) {
  gpuTest(
    `top-k steps are nested, ascending and of the wanted size: capacities ${capacities}`,
    async (device) => {
      const { selected, depths } = await pass(device, {
        model: routedModel({ capacities }),
        ids,
        routing: "top-k",
      });
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

gpuTest("a pass gives the same bits every time", async (device) => {
  for (const routing of ["causal", "top-k"] as const) {
    const model = routedModel();
    const first = await pass(device, { model, ids, routing });
    assertEquals(await pass(device, { model, ids, routing }), first);
  }
});
