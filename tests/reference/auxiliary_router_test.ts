/** Expert choice with a second router that learns to predict the first one's choice, and decides in inference. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { ExpertChoiceConfig } from "../../model/config.ts";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { lossTerms } from "./loss.ts";
import { randomIds, randomModel, tinyConfig, tinyRecursiveConfig, tinyRouter } from "./tiny_model.ts";
import { backward, forward } from "./transformer.ts";
import type { Model } from "./weights.ts";

const recursion = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const ids = randomIds(tinyConfig(), { random: createRandom(121), count: 26 });
const batch = { ids, sequences: 2 };
const threshold = { kind: "threshold", threshold: 0 } as const;

function auxiliaryModel(changes: Partial<ExpertChoiceConfig> = {}): Model {
  const router = tinyRouter({ alpha: 1, auxiliary: "router", auxiliaryCoefficient: 0.3, ...changes });
  return randomModel(tinyRecursiveConfig(recursion, { router }), { random: createRandom(120) });
}

function withoutAuxiliary({ config, weights }: Model): Model {
  const router = { ...config.router as ExpertChoiceConfig, auxiliary: "none" as const };
  return { config: { ...config, router }, weights };
}

for (const architecture of ["linear", "mlp"] as const) {
  Deno.test(`an auxiliary ${architecture} router has no effect on the rest of the model in training`, () => {
    const model = auxiliaryModel({ architecture });
    const plain = withoutAuxiliary(model);
    const tape = forward(model, batch);
    const plainTape = forward(plain, batch);
    assertEquals(tape.logits, plainTape.logits);
    const gradients = backward(model, { tape, targets: ids });
    for (const [name, gradient] of backward(plain, { tape: plainTape, targets: ids })) {
      const isAuxiliary = name.startsWith("model.aux_routers.");
      assertEquals(gradient.every((value) => value === 0), isAuxiliary, name);
      if (isAuxiliary) assertNotEquals(gradients.get(name), gradient);
      else assertEquals(gradients.get(name), gradient, name);
    }
  });
}

Deno.test("the auxiliary loss holds the auxiliary router to the top-k choice of the router", () => {
  const model = auxiliaryModel();
  const tape = forward(model, batch);
  let auxiliary = 0;
  for (const { router, auxiliaryRouter, labels } of tape.steps) {
    assertEquals(auxiliaryRouter!.candidates, router.candidates);
    auxiliaryRouter!.logits.forEach((logit, i) => {
      const probability = 1 / (1 + Math.exp(-logit));
      auxiliary -= Math.log(labels[i] === 1 ? probability : 1 - probability) / labels.length;
    });
  }
  const losses = lossTerms(model, { tape, targets: ids });
  assertClose([losses.auxiliary], [auxiliary], { relative: 1e-12, label: "auxiliary" });
  assertClose([losses.total], [losses.crossEntropy + 0.3 * auxiliary], { relative: 1e-12, label: "total" });
});

Deno.test("by threshold the auxiliary router decides and the router gives the gate", () => {
  const { steps } = forward(auxiliaryModel(), { ...batch, selection: threshold });
  assertEquals(steps[0]!.indices.length, ids.length, "the first step is unconditional");
  for (const { router, auxiliaryRouter, labels, chosen, weights } of steps.slice(1)) {
    const decisions = Array.from(auxiliaryRouter!.logits, (logit) => Number(logit > 0));
    assertEquals(Array.from(labels), decisions);
    assertEquals(weights, Float64Array.from(chosen, (i) => 1 / (1 + Math.exp(-router.logits[i]!))));
    assert(decisions.some((label, i) => label !== Number(router.logits[i]! > 0)));
  }
});
