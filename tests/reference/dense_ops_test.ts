import { assertEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { assertGradient } from "./central_differences.ts";
import { embedding, embeddingBackward } from "./embedding.ts";
import { linear, linearInputGradient, linearWeightGradient } from "./linear.ts";
import { rmsNorm, rmsNormBackward } from "./rms_norm.ts";
import { rope, ropeBackward } from "./rope.ts";
import { dot, row } from "./rows.ts";
import { swiglu, swigluBackward } from "./swiglu.ts";

Deno.test("embedding picks rows and its gradient adds up repeated ids", () => {
  const random = createRandom(1);
  const sizes = { hiddenSize: 3, vocabSize: 5 };
  const weight = random.normals(15);
  const ids = [4, 1, 4, 0];
  assertEquals(embedding({ ids, weight }, sizes).slice(0, 3), weight.slice(12));
  const gradOut = random.normals(12);
  const gradient = embeddingBackward({ ids, gradOut }, sizes);
  assertGradient(gradient, {
    loss: () => dot(gradOut, embedding({ ids, weight }, sizes)),
    x: weight,
    label: "weight",
  });
});

for (const rows of [5, 1, 0]) {
  Deno.test(`linear gradients match central differences with ${rows} rows`, () => {
    const random = createRandom(2 + rows);
    const sizes = { inFeatures: 7, outFeatures: 3 };
    const x = random.normals(rows * 7);
    const weight = random.normals(21);
    const gradOut = random.normals(rows * 3);
    function loss(): number {
      return dot(gradOut, linear({ x, weight }, sizes));
    }
    assertGradient(linearInputGradient({ gradOut, weight }, sizes), { loss, x, label: "x" });
    assertGradient(linearWeightGradient({ gradOut, x }, sizes), { loss, x: weight, label: "weight" });
  });

  Deno.test(`rmsNorm gradients match central differences with ${rows} rows`, () => {
    const random = createRandom(20 + rows);
    const x = random.normals(rows * 7);
    const weight = random.normals(7);
    const gradOut = random.normals(rows * 7);
    function loss(): number {
      return dot(gradOut, rmsNorm({ x, weight }, { eps: 0.1 }).out);
    }
    const { rrms } = rmsNorm({ x, weight }, { eps: 0.1 });
    const { gradX, gradWeight } = rmsNormBackward({ gradOut, x, weight, rrms });
    assertGradient(gradX, { loss, x, label: "x" });
    assertGradient(gradWeight, { loss, x: weight, label: "weight" });
  });

  Deno.test(`swiglu gradient matches central differences with ${rows} rows`, () => {
    const random = createRandom(30 + rows);
    const sizes = { intermediateSize: 5 };
    const gateUp = random.normals(rows * 10, 2);
    const gradOut = random.normals(rows * 5);
    assertGradient(swigluBackward({ gradOut, gateUp }, sizes), {
      loss: () => dot(gradOut, swiglu({ gateUp }, sizes)),
      x: gateUp,
      label: "gateUp",
    });
  });
}

Deno.test("rmsNorm brings a row to unit mean square", () => {
  const { out, rrms } = rmsNorm({ x: Float64Array.of(3, -4), weight: Float64Array.of(1, 1) }, { eps: 0 });
  assertClose(rrms, [Math.sqrt(2) / 5], { relative: 1e-15, label: "rrms" });
  assertClose(out, [0.6 * Math.sqrt(2), -0.8 * Math.sqrt(2)], { relative: 1e-15, label: "out" });
});

Deno.test("swiglu reads the gate from a row's first half", () => {
  const out = swiglu({ gateUp: Float64Array.of(0, 40, 7, 3, -40, 1, 5, 2) }, { intermediateSize: 2 });
  assertClose(out, [0, 120, 0, Math.E / (Math.E + 1) * 2], { relative: 1e-15, label: "out" });
});

Deno.test("rope gradient matches central differences at scattered positions", () => {
  const random = createRandom(40);
  const settings = { heads: 3, headDim: 6, theta: 100 };
  const positions = [0, 9, 2, 700];
  const x = random.normals(4 * 18);
  const gradOut = random.normals(4 * 18);
  assertGradient(ropeBackward({ gradOut, positions }, settings), {
    loss: () => dot(gradOut, rope({ x, positions }, settings)),
    x,
    label: "x",
  });
});

Deno.test("rope leaves position 0 alone and turns entry 0 towards entry D/2", () => {
  const settings = { heads: 1, headDim: 4, theta: 10000 };
  const x = Float64Array.of(1, 0, 0, 0, 1, 0, 0, 0);
  const out = rope({ x, positions: [0, 1] }, settings);
  assertClose(out, [1, 0, 0, 0, Math.cos(1), 0, Math.sin(1), 0], { relative: 1e-15, label: "out" });
});

Deno.test("rope makes scores depend on the distance between positions alone", () => {
  const random = createRandom(41);
  const settings = { heads: 1, headDim: 8, theta: 100 };
  const x = random.normals(16);
  function score(positions: number[]): number {
    const out = rope({ x, positions }, settings);
    return dot(row(out, { index: 0, width: 8 }), row(out, { index: 1, width: 8 }));
  }
  assertClose([score([3, 10])], [score([50, 57])], { relative: 1e-12, label: "score" });
});
