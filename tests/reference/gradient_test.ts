/** The whole model's backward against central differences, for what the golden cases leave out. */
import { assertEquals, assertThrows } from "@std/assert";
import type { ModelConfig } from "../../model/config.ts";
import { createRandom } from "../support/random.ts";
import { assertGradient } from "./central_differences.ts";
import { lossTerms } from "./loss.ts";
import type { Selection } from "./recursion.ts";
import { randomIds, randomModel, tinyConfig, tinyRecursiveConfig, tinyRouter } from "./tiny_model.ts";
import { backward, forward } from "./transformer.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const cycle = { sharing: "cycle", numRecursions: 2, blockLayers: 2 } as const;
const withLosses = { auxiliaryCoefficient: 0.3, zCoefficient: 0.05, temperature: 1.3, alpha: 0.7 };

const threshold: Selection = { kind: "threshold", threshold: 0 };

const configs: Record<string, ModelConfig> = {
  "vanilla": tinyConfig(),
  "vanilla with its own head": tinyConfig({ tieWordEmbeddings: false }),
  "recursive cycle": tinyRecursiveConfig(cycle),
  "recursive sequence": tinyRecursiveConfig({ ...cycle, sharing: "sequence" }),
  "recursive middle_sequence": tinyRecursiveConfig({ ...cycle, sharing: "middle_sequence" }),
  "weighted sigmoid": tinyRecursiveConfig(middleCycle, { router: tinyRouter(withLosses) }),
  "weighted tanh": tinyRecursiveConfig(middleCycle, {
    router: tinyRouter({ ...withLosses, function: "tanh" }),
  }),
  "weighted none": tinyRecursiveConfig(cycle, { router: tinyRouter({ ...withLosses, function: "none" }) }),
  "delta sigmoid with its own head": tinyRecursiveConfig(middleCycle, {
    router: tinyRouter({ ...withLosses, gating: "delta" }),
    tieWordEmbeddings: false,
  }),
  "additive sigmoid": tinyRecursiveConfig(middleCycle, {
    router: tinyRouter({ ...withLosses, gating: "additive" }),
  }),
  "replace sigmoid, first step not full": tinyRecursiveConfig(cycle, {
    router: tinyRouter({ ...withLosses, gating: "replace", capacities: [0.7, 0.4] }),
  }),
  "no auxiliary loss": tinyRecursiveConfig(cycle, {
    router: tinyRouter({ ...withLosses, auxiliary: "none" }),
  }),
};

/** Checks five entries of every weight; returns the lengths of the sequences in every recursion step. */
function assertModelGradients(
  config: ModelConfig,
  { selection, seed }: { selection: Selection; seed: number },
): number[][] {
  const random = createRandom(seed);
  const model = randomModel(config, { random });
  const sequences = 3;
  const batch = { ids: randomIds(config, { random, count: sequences * 7 }), sequences, selection };
  const targets = randomIds(config, { random, count: sequences * 7 });
  const tape = forward(model, batch);
  const gradients = backward(model, { tape, targets });
  assertEquals(Array.from(gradients.keys()), Array.from(model.weights.keys()));
  for (const [label, x] of model.weights) {
    assertGradient(gradients.get(label)!, {
      loss: () => lossTerms(model, { tape: forward(model, batch), targets }).total,
      x,
      label,
      entries: Array.from({ length: 5 }, () => random.integer(x.length)),
    });
  }
  return tape.steps.map(({ lengths }) => Array.from(lengths));
}

for (const [name, config] of Object.entries(configs)) {
  Deno.test(`backward matches central differences in training mode: ${name}`, () => {
    assertModelGradients(config, { selection: { kind: "top_k" }, seed: 70 });
  });
  if (config.router === null) continue;
  Deno.test(`backward matches central differences with the threshold rule: ${name}`, () => {
    assertModelGradients(config, { selection: threshold, seed: 71 });
  });
}

Deno.test("backward matches central differences where sequences stop early and a step has no token", () => {
  const router = tinyRouter({ ...withLosses, capacities: [0.9, 0.5, 0.3] });
  const config = tinyRecursiveConfig(middleCycle, { router });
  const lengths = assertModelGradients(config, { selection: threshold, seed: 71 });
  assertEquals(lengths, [[6, 7, 7], [0, 0, 2], [0, 0, 0]]);
});

Deno.test("forward refuses schemes that the reference does not cover", () => {
  const router = {
    kind: "token_choice",
    function: "softmax",
    alpha: 1,
    temperature: 1,
    gating: "weighted",
    architecture: "linear",
    balancing: "loss",
    balancingCoefficient: 0.1,
    biasUpdateRate: 0.001,
    zCoefficient: 0,
    random: false,
  } as const;
  const refused: [string, ModelConfig][] = [
    ["token choice", tinyRecursiveConfig(cycle, { router })],
    ["shared keys and values", tinyRecursiveConfig(cycle, { kvCache: "shared" })],
    ["mlp router", tinyRecursiveConfig(cycle, { router: tinyRouter({ architecture: "mlp" }) })],
    ["auxiliary router", tinyRecursiveConfig(cycle, { router: tinyRouter({ auxiliary: "router" }) })],
    ["random router", tinyRecursiveConfig(cycle, { router: tinyRouter({ random: true }) })],
  ];
  for (const [what, config] of refused) {
    const model = randomModel(config, { random: createRandom(72) });
    assertThrows(() => forward(model, { ids: [1], sequences: 1 }), RangeError, what);
  }
});
