/** Properties that any correct Mixture-of-Recursions model has, shown on the reference. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { ExpertChoiceConfig, ModelConfig } from "../../model/config.ts";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { lossTerms } from "./loss.ts";
import type { Selection } from "./expert_choice.ts";
import { addScaled, row } from "./rows.ts";
import { layerPlan, unrolledLayers } from "./sharing.ts";
import { stackForward } from "./stack.ts";
import { randomIds, randomModel, tinyConfig, tinyRecursiveConfig, tinyRouter } from "./tiny_model.ts";
import { backward, forward, type ModelTape } from "./transformer.ts";
import type { Model } from "./weights.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const threshold: Selection = { kind: "threshold", threshold: 0 };
const everyToken: Selection = { kind: "threshold", threshold: -Infinity };

function routedModel(changes: Partial<ExpertChoiceConfig> = {}, { seed = 80 } = {}): Model {
  const config = tinyRecursiveConfig(middleCycle, { router: tinyRouter({ alpha: 1, ...changes }) });
  return randomModel(config, { random: createRandom(seed) });
}

function withConfig({ weights }: Model, config: ModelConfig): Model {
  return { weights, config };
}

/** Logits of one position, (V). */
function logitsAt(
  { logits }: ModelTape,
  { config, index }: { config: ModelConfig; index: number },
): Float64Array {
  return row(logits, { index, width: config.vocabSize });
}

const ids = randomIds(tinyConfig(), { random: createRandom(81), count: 26 });
const batch = { ids, sequences: 2 };
const tokens = 13;

Deno.test("unrolledLayers follows the four sharing strategies", () => {
  function unrolled(sharing: "cycle" | "sequence" | "middle_cycle" | "middle_sequence"): string {
    return unrolledLayers(tinyRecursiveConfig({ sharing, numRecursions: 2, blockLayers: 3 })).join("");
  }
  assertEquals(unrolled("cycle"), "012012");
  assertEquals(unrolled("sequence"), "001122");
  assertEquals(unrolled("middle_cycle"), "01231234");
  assertEquals(unrolled("middle_sequence"), "01122334");
  assertEquals(unrolledLayers(tinyConfig()), [0, 1, 2]);
});

for (const kvCache of ["recursion_wise", "shared"] as const) {
  Deno.test(`replace at full depth equals the recursive baseline, ${kvCache}`, () => {
    const routed = routedModel({ gating: "replace", capacities: [1, 1, 1] });
    const model = withConfig(routed, { ...routed.config, kvCache });
    const baseline = forward(withConfig(model, tinyRecursiveConfig(middleCycle, { kvCache })), batch);
    const tolerance = { relative: 1e-12, label: "logits" };
    assertClose(forward(model, batch).logits, baseline.logits, tolerance);
    assertClose(forward(model, { ...batch, selection: everyToken }).logits, baseline.logits, tolerance);
  });
}

Deno.test("additive at full depth equals the loop x <- x + Block(x), not the baseline", () => {
  const model = routedModel({ gating: "additive", capacities: [1, 1, 1] });
  const { before, steps, logits } = forward(model, batch);
  const { packing } = before.tapes[0]!;
  const x = before.out.slice();
  for (let r = 0; r < 3; r++) {
    addScaled(x, { source: stackForward(model, { x, layers: layerPlan(middleCycle).block, packing }).out });
  }
  assertClose(steps.at(-1)!.out, x, { relative: 1e-12, label: "state" });
  assertNotEquals(logits, forward(withConfig(model, tinyRecursiveConfig(middleCycle)), batch).logits);
});

Deno.test("one recursion with replace equals a vanilla Transformer of the same weights", () => {
  const recursion = { sharing: "middle_cycle", numRecursions: 1, blockLayers: 2 } as const;
  const config = tinyRecursiveConfig(recursion, { router: tinyRouter({ gating: "replace" }) });
  const model = randomModel(config, { random: createRandom(82) });
  const vanilla = forward(withConfig(model, tinyConfig({ numHiddenLayers: 4 })), batch);
  for (const selection of [{ kind: "top_k" } as const, threshold]) {
    assertClose(forward(model, { ...batch, selection }).logits, vanilla.logits, {
      relative: 1e-12,
      label: "logits",
    });
  }
});

const causal: Record<string, Model> = {
  "vanilla": randomModel(tinyConfig(), { random: createRandom(83) }),
  "recursive": withConfig(routedModel(), tinyRecursiveConfig(middleCycle)),
  "expert choice by threshold": routedModel(),
  "expert choice by threshold in every step": routedModel({ capacities: [0.9, 0.5, 0.2] }),
  "expert choice by an auxiliary router": routedModel({ auxiliary: "router" }),
  "recursive, shared keys and values": withConfig(
    routedModel(),
    tinyRecursiveConfig(middleCycle, { kvCache: "shared" }),
  ),
  "expert choice by threshold, shared keys and values": withConfig(routedModel(), {
    ...routedModel().config,
    kvCache: "shared",
  }),
};

for (const [name, model] of Object.entries(causal)) {
  Deno.test(`editing a token leaves all earlier logits bit-identical: ${name}`, () => {
    const tape = forward(model, { ...batch, selection: threshold });
    for (let edited = 0; edited < tokens; edited++) {
      const other = ids.slice();
      other[edited] = (other[edited]! + 1) % model.config.vocabSize;
      const { logits } = forward(model, { ids: other, sequences: 2, selection: threshold });
      const before = edited * model.config.vocabSize;
      assertEquals(logits.slice(0, before), tape.logits.slice(0, before));
      assertNotEquals(logits.slice(before), tape.logits.slice(before));
    }
  });
}

Deno.test("top-k choice is not causal: a later token can push an earlier one out", () => {
  const recursion = { sharing: "cycle", numRecursions: 1, blockLayers: 1 } as const;
  const config = tinyRecursiveConfig(recursion, { router: tinyRouter({ alpha: 1, capacities: [0.5] }) });
  const model = randomModel(config, { random: createRandom(84) });
  // The router reads the first entry of the embedding, which is the token's id.
  model.weights.get("model.routers.0.weight")!.fill(0)[0] = 1;
  for (let id = 0; id < config.vocabSize; id++) {
    model.weights.get("model.embed_tokens.weight")![id * config.hiddenSize] = id;
  }
  const alone = forward(model, { ids: [5, 1], sequences: 1 });
  const pushed = forward(model, { ids: [5, 9], sequences: 1 });
  assertEquals(alone.depths, Int32Array.of(1, 0));
  assertEquals(pushed.depths, Int32Array.of(0, 1));
  assertNotEquals(logitsAt(alone, { config, index: 0 }), logitsAt(pushed, { config, index: 0 }));
});

for (const capacities of [null, [0.8, 0.8, 0.05]]) {
  Deno.test(`top-k steps are nested, sorted and of the wanted size: capacities ${capacities}`, () => {
    const { steps, depths } = forward(routedModel({ capacities }), batch);
    const sizes = capacities ? [10, 10, 1] : [13, 8, 4];
    const runs = new Int32Array(ids.length);
    steps.forEach(({ router: { x, candidates }, out, indices, lengths, labels }, r) => {
      assertEquals(lengths, Int32Array.of(sizes[r]!, sizes[r]!));
      assertEquals(indices, indices.toSorted());
      assertEquals(new Set(indices).size, 2 * sizes[r]!);
      assert(indices.every((index) => candidates.includes(index)));
      assertEquals(candidates.filter((_, i) => labels[i] === 1), indices);
      for (let index = 0; index < ids.length; index++) {
        const isSame = row(x, { index, width: 8 }).every((value, c) => value === out[index * 8 + c]);
        assertEquals(isSame, !indices.includes(index), `row ${index} of step ${r}`);
      }
      for (const index of indices) runs[index]!++;
    });
    assertEquals(depths, runs);
  });
}

Deno.test("a sequence's logits do not depend on the other sequences of the batch", () => {
  const model = routedModel();
  for (const selection of [{ kind: "top_k" } as const, threshold]) {
    const { logits } = forward(model, { ...batch, selection });
    const alone = [ids.slice(0, tokens), ids.slice(tokens)].flatMap((sequence) =>
      Array.from(forward(model, { ids: sequence, sequences: 1, selection }).logits)
    );
    assertEquals(logits, Float64Array.from(alone));
  }
});

Deno.test("auxiliary loss and z-loss average over the candidates of each step", () => {
  const model = routedModel();
  const tape = forward(model, batch);
  let auxiliary = 0;
  let z = 0;
  for (const { router: { logits }, labels } of tape.steps) {
    logits.forEach((logit, i) => {
      const probability = 1 / (1 + Math.exp(-logit));
      auxiliary -= Math.log(labels[i] === 1 ? probability : 1 - probability) / logits.length;
      z += logit ** 2 / logits.length;
    });
  }
  assertEquals(tape.steps.map(({ router }) => router.logits.length), [26, 26, 16]);
  assert(tape.steps[0]!.labels.every((label) => label === 1));
  const losses = lossTerms(model, { tape, targets: ids });
  assertClose([losses.auxiliary, losses.z], [auxiliary, z], { relative: 1e-12, label: "losses" });
  assertClose([losses.total], [losses.crossEntropy + 0.001 * auxiliary], { relative: 1e-12, label: "total" });
});

for (const gating of ["additive", "replace"] as const) {
  Deno.test(`${gating} gating without router losses leaves the routers without a gradient`, () => {
    const model = routedModel({ gating, auxiliary: "none" });
    const gradients = backward(model, { tape: forward(model, batch), targets: ids });
    for (let r = 0; r < 3; r++) {
      assertEquals(gradients.get(`model.routers.${r}.weight`), new Float64Array(8));
    }
  });
}
