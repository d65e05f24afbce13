import { assertEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { assertGradient } from "./central_differences.ts";
import { erfc } from "./gelu.ts";
import { routerBackward, routerForward } from "./router.ts";
import { dot } from "./rows.ts";
import { randomModel, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "./tiny_model.ts";
import { type Model, weightOf, zeroGradients } from "./weights.ts";

const recursion = { sharing: "cycle", numRecursions: 3, blockLayers: 1 } as const;
const candidates = Int32Array.of(0, 2, 3);

function tokenModel(architecture: "linear" | "mlp"): Model {
  const router = tinyTokenRouter({ architecture, temperature: 1.7 });
  return randomModel(tinyRecursiveConfig(recursion, { router }), { random: createRandom(110) });
}

for (const architecture of ["linear", "mlp"] as const) {
  Deno.test(`${architecture} router gradients match central differences`, () => {
    const model = tokenModel(architecture);
    const random = createRandom(111);
    const x = random.normals(5 * 8);
    const gradLogits = random.normals(3 * 3);
    const gradients = zeroGradients(model.weights);
    function loss(): number {
      return dot(gradLogits, routerForward(model, { prefix: "model.router", x, candidates }).logits);
    }
    const tape = routerForward(model, { prefix: "model.router", x, candidates });
    assertGradient(routerBackward(model, { tape, gradLogits, gradients }), { loss, x, label: "x" });
    for (const [label, weight] of model.weights) {
      if (!label.startsWith("model.router.")) continue;
      assertGradient(gradients.get(label)!, { loss, x: weight, label });
    }
  });
}

Deno.test("an mlp router is output(gelu(hidden(x / temperature)))", () => {
  const model = tokenModel("mlp");
  const x = createRandom(112).normals(5 * 8);
  const hidden = weightOf(model, "model.router.hidden.weight");
  const output = weightOf(model, "model.router.output.weight");
  assertEquals([hidden.length, output.length], [16 * 8, 3 * 16]);
  const expected = Array.from(candidates).flatMap((row) => {
    const features = Array.from({ length: 16 }, (_, i) => {
      let sum = 0;
      for (let c = 0; c < 8; c++) sum += hidden[i * 8 + c]! * x[row * 8 + c]! / 1.7;
      return sum * erfc(-sum / Math.SQRT2) / 2;
    });
    return [0, 1, 2].map((o) => features.reduce((sum, value, i) => sum + output[o * 16 + i]! * value, 0));
  });
  const { logits } = routerForward(model, { prefix: "model.router", x, candidates });
  assertClose(logits, expected, { relative: 1e-14, label: "logits" });
});

Deno.test("expert choice has a router, and with `auxiliary: router` a second one, for every step", () => {
  function names(architecture: "linear" | "mlp"): string[] {
    const router = tinyRouter({ architecture, auxiliary: "router" });
    const { weights } = randomModel(tinyRecursiveConfig(recursion, { router }), {
      random: createRandom(113),
    });
    return Array.from(weights.keys()).filter((name) => /router/.test(name));
  }
  const prefixes = ["routers", "aux_routers"].flatMap((group) => [0, 1, 2].map((r) => `model.${group}.${r}`));
  assertEquals(names("linear"), prefixes.map((prefix) => `${prefix}.weight`));
  assertEquals(
    names("mlp"),
    prefixes.flatMap((prefix) => [`${prefix}.hidden.weight`, `${prefix}.output.weight`]),
  );
});
