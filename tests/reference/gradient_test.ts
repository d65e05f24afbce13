/** The whole model's backward against central differences, for what the golden cases leave out. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import type {
  ExpertChoiceConfig,
  ModelConfig,
  RecursionConfig,
  TokenChoiceConfig,
} from "../../model/config.ts";
import { createRandom } from "../support/random.ts";
import { assertGradient } from "./central_differences.ts";
import { lossTerms } from "./loss.ts";
import type { Selection } from "./expert_choice.ts";
import {
  randomIds,
  randomModel,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRopeScaling,
  tinyRouter,
  tinyTokenRouter,
} from "./tiny_model.ts";
import { backward, forward } from "./transformer.ts";
import { routerBias } from "./weights.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const cycle = { sharing: "cycle", numRecursions: 2, blockLayers: 2 } as const;
const withLosses = { auxiliaryCoefficient: 0.3, zCoefficient: 0.05, temperature: 1.3, alpha: 0.7 };

const topK: Selection = { kind: "top_k" };
const threshold: Selection = { kind: "threshold", threshold: 0 };

function expertChoice(recursion: RecursionConfig, changes: Partial<ExpertChoiceConfig> = {}): ModelConfig {
  return tinyRecursiveConfig(recursion, { router: tinyRouter({ ...withLosses, ...changes }) });
}

function tokenChoice(recursion: RecursionConfig, changes: Partial<TokenChoiceConfig> = {}): ModelConfig {
  const losses = { balancingCoefficient: 0.3, zCoefficient: 0.05 };
  return tinyRecursiveConfig(recursion, {
    router: tinyTokenRouter({ ...losses, temperature: 1.3, alpha: 0.7, ...changes }),
  });
}

function shared(config: ModelConfig): ModelConfig {
  return { ...config, kvCache: "shared" };
}

const configs: Record<string, ModelConfig> = {
  "vanilla": tinyConfig(),
  "vanilla with its own head": tinyConfig({ tieWordEmbeddings: false }),
  "vanilla with scaled RoPE": tinyConfig({ ropeScaling: tinyRopeScaling }),
  "recursive cycle": tinyRecursiveConfig(cycle),
  "recursive sequence": tinyRecursiveConfig({ ...cycle, sharing: "sequence" }),
  "recursive middle_sequence": tinyRecursiveConfig({ ...cycle, sharing: "middle_sequence" }),
  "recursive cycle, shared keys and values": shared(tinyRecursiveConfig(cycle)),
  "recursive middle_cycle, shared keys and values": shared(tinyRecursiveConfig(middleCycle)),
};

const expertChoices: Record<string, ModelConfig> = {
  "weighted sigmoid": expertChoice(middleCycle),
  "weighted tanh": expertChoice(middleCycle, { function: "tanh" }),
  "weighted none": expertChoice(cycle, { function: "none" }),
  "delta sigmoid with its own head": {
    ...expertChoice(middleCycle, { gating: "delta" }),
    tieWordEmbeddings: false,
  },
  "additive sigmoid": expertChoice(middleCycle, { gating: "additive" }),
  "replace sigmoid, first step not full": expertChoice(cycle, {
    gating: "replace",
    capacities: [0.7, 0.4],
  }),
  "no auxiliary loss": expertChoice(cycle, { auxiliary: "none" }),
  "mlp router": expertChoice(cycle, { architecture: "mlp" }),
  "auxiliary router": expertChoice(cycle, { auxiliary: "router" }),
  "auxiliary mlp router, first step not full": expertChoice(middleCycle, {
    auxiliary: "router",
    architecture: "mlp",
    capacities: [0.8, 0.6, 0.3],
  }),
  "shared keys and values": shared(expertChoice(middleCycle)),
  "shared keys and values, auxiliary router": shared(expertChoice(cycle, { auxiliary: "router" })),
};

const tokenChoices: Record<string, ModelConfig> = {
  "weighted softmax": tokenChoice(middleCycle),
  "weighted sigmoid": tokenChoice(cycle, { function: "sigmoid" }),
  "weighted softmax, mlp router": tokenChoice(cycle, { architecture: "mlp" }),
  "delta sigmoid, mlp router": tokenChoice(middleCycle, {
    gating: "delta",
    function: "sigmoid",
    architecture: "mlp",
  }),
  "additive softmax": tokenChoice(middleCycle, { gating: "additive" }),
  "replace sigmoid": tokenChoice(middleCycle, { gating: "replace", function: "sigmoid" }),
  "delta softmax, loss-free balancing": tokenChoice(cycle, { gating: "delta", balancing: "loss_free" }),
  "no balancing": tokenChoice(cycle, { balancing: "none" }),
  "shared keys and values": shared(tokenChoice(middleCycle)),
  "replace, shared keys and values": shared(tokenChoice(cycle, { gating: "replace" })),
};

/**
 * Checks five entries of every weight; returns the lengths of the sequences in every recursion step.
 *
 * Seeds must not give a sequence that begins with one token twice: its first two rows stay equal, so that
 * rounding alone would choose between them.
 */
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
  const trained = Array.from(model.weights.keys()).filter((name) => name !== routerBias);
  assertEquals(Array.from(gradients.keys()), trained);
  // The loss of auxiliary routers does not reach other weights.
  const isDetached = config.router?.kind === "expert_choice" && config.router.auxiliary === "router";
  const coefficient = withLosses.auxiliaryCoefficient;
  for (const [label, gradient] of gradients) {
    const x = model.weights.get(label)!;
    assertGradient(gradient, {
      loss(): number {
        const { total, auxiliary } = lossTerms(model, { tape: forward(model, batch), targets });
        return isDetached && !label.startsWith("model.aux_routers") ? total - coefficient * auxiliary : total;
      },
      x,
      label,
      entries: Array.from({ length: 5 }, () => random.integer(x.length)),
    });
  }
  return [...tape.steps, ...tape.tokenChoice?.steps ?? []].map(({ lengths }) => Array.from(lengths));
}

for (const [name, config] of Object.entries(configs)) {
  Deno.test(`backward matches central differences: ${name}`, () => {
    assertModelGradients(config, { selection: topK, seed: 72 });
  });
}

for (const [name, config] of Object.entries(expertChoices)) {
  Deno.test(`backward matches central differences with expert choice in training: ${name}`, () => {
    assertModelGradients(config, { selection: topK, seed: 72 });
  });
  Deno.test(`backward matches central differences with expert choice by threshold: ${name}`, () => {
    assertModelGradients(config, { selection: threshold, seed: 71 });
  });
}

for (const [name, config] of Object.entries(tokenChoices)) {
  Deno.test(`backward matches central differences with token choice: ${name}`, () => {
    const lengths = assertModelGradients(config, { selection: topK, seed: 76 });
    const counts = lengths.map((each) => each.reduce((sum, length) => sum + length));
    assert(counts.every((count, r) => count > (counts[r + 1] ?? 0)), `no token of some depth: ${counts}`);
  });
}

Deno.test("backward matches central differences where sequences stop early and a step has no token", () => {
  const config = expertChoice(middleCycle, { capacities: [0.9, 0.5, 0.3] });
  const lengths = assertModelGradients(config, { selection: threshold, seed: 71 });
  assertEquals(lengths, [[6, 7, 7], [0, 0, 2], [0, 0, 0]]);
});

Deno.test("forward refuses schemes that the reference does not have", () => {
  const sequence = { ...cycle, sharing: "sequence" } as const;
  const middleSequence = { ...cycle, sharing: "middle_sequence" } as const;
  const refused: [string, ModelConfig][] = [
    ["random router", expertChoice(cycle, { random: true })],
    ["random router", tokenChoice(cycle, { random: true })],
    ["shared keys and values with sharing sequence", shared(tinyRecursiveConfig(sequence))],
    ["shared keys and values with sharing middle_sequence", shared(tinyRecursiveConfig(middleSequence))],
    [
      "where the first step does not run every token",
      shared(expertChoice(cycle, { capacities: [0.9, 0.5] })),
    ],
  ];
  for (const [what, config] of refused) {
    const model = randomModel(config, { random: createRandom(72) });
    assertThrows(() => forward(model, { ids: [1], sequences: 1 }), RangeError, what);
  }
});
