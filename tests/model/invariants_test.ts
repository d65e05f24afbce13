/** Properties that any correct Mixture-of-Recursions model has, by name: what its decisions depend on. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { tinyConfig, tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import type { Model } from "../reference/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel } from "../support/gpu_model.ts";
import {
  ids,
  middleCycle,
  pass,
  routedModel,
  tokenModel,
  tokens,
  withConfig,
} from "../support/invariant_models.ts";

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

gpuTest("a pass gives the same bits every time", async (device) => {
  for (const routing of ["causal", "top-k"] as const) {
    for (const model of [routedModel(), tokenModel(sharedKeys)]) {
      const first = await pass(device, { model, ids, routing });
      assertEquals(await pass(device, { model, ids, routing }), first);
    }
  }
});
