import { assertEquals } from "@std/assert";
import { createRandom } from "../support/random.ts";
import { assertGradient } from "./central_differences.ts";
import { routerScore, routerScoreBackward } from "./router_score.ts";
import { dot } from "./rows.ts";

Deno.test("routerScore gradients match central differences with three outputs", () => {
  const random = createRandom(60);
  const settings = { temperature: 1.7, outputs: 3 };
  const x = random.normals(6 * 5);
  const weight = random.normals(3 * 5);
  const indices = [0, 2, 5];
  const gradLogits = random.normals(indices.length * 3);
  const { gradX, gradWeight } = routerScoreBackward({ gradLogits, x, weight, indices }, settings);
  function loss(): number {
    return dot(gradLogits, routerScore({ x, weight, indices }, settings));
  }
  assertGradient(gradX, { loss, x, label: "x" });
  assertGradient(gradWeight, { loss, x: weight, label: "weight" });
});

Deno.test("routerScore gives each candidate one logit for each row of the weight", () => {
  const x = Float64Array.of(1, 2, 3, 4);
  const weight = Float64Array.of(1, 10, 0, 1);
  const logits = routerScore({ x, weight, indices: [1, 0] }, { temperature: 2, outputs: 2 });
  assertEquals(logits, Float64Array.of(21.5, 2, 10.5, 1));
});
