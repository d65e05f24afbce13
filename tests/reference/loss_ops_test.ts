import { assertEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { adamw, clipCoefficient } from "./adamw.ts";
import { binaryCrossEntropy, binaryCrossEntropyBackward } from "./binary_cross_entropy.ts";
import { assertGradient } from "./central_differences.ts";
import { crossEntropy, crossEntropyBackward } from "./cross_entropy.ts";
import { sumSquares } from "./sum_squares.ts";

function mean(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

for (const { rows, stride } of [{ rows: 5, stride: 7 }, { rows: 3, stride: 12 }, { rows: 1, stride: 8 }]) {
  Deno.test(`crossEntropy gradient matches central differences, ${rows} rows of stride ${stride}`, () => {
    const random = createRandom(60);
    const sizes = { vocabSize: 7, stride };
    const logits = random.normals(rows * stride, 3);
    const targets = Array.from({ length: rows }, () => random.integer(7));
    const gradient = crossEntropyBackward({ logits, targets }, { ...sizes, scale: 0.25 });
    // Central differences are 0 in the padding columns, which must not matter.
    assertGradient(gradient, {
      loss: () => 0.25 * mean(crossEntropy({ logits, targets }, sizes)),
      x: logits,
      label: "logits",
    });
  });
}

Deno.test("crossEntropy of equal logits is log V and does not overflow", () => {
  const logits = new Float64Array(8).fill(5000);
  const losses = crossEntropy({ logits, targets: [0, 3] }, { vocabSize: 4 });
  assertClose(losses, [Math.log(4), Math.log(4)], { relative: 1e-12, label: "losses" });
});

for (const count of [7, 1]) {
  Deno.test(`binaryCrossEntropy gradient matches central differences with ${count} candidates`, () => {
    const random = createRandom(61);
    const logits = random.normals(count, 3);
    const labels = Array.from({ length: count }, () => random.integer(2));
    const coefficients = { coefficient: 0.7, zCoefficient: 0.2 };
    assertGradient(binaryCrossEntropyBackward({ logits, labels }, coefficients), {
      loss(): number {
        const { losses, squares } = binaryCrossEntropy({ logits, labels });
        return 0.7 * mean(losses) + 0.2 * mean(squares);
      },
      x: logits,
      label: "logits",
    });
  });
}

Deno.test("binaryCrossEntropy is exact at 0 and linear far out", () => {
  const logits = Float64Array.of(0, 0, 1000, 1000, -1000, -1000);
  const { losses, squares, agreements } = binaryCrossEntropy({ logits, labels: [0, 1, 0, 1, 0, 1] });
  assertEquals(losses, Float64Array.of(Math.log(2), Math.log(2), 1000, 0, 0, 1000));
  assertEquals(squares.slice(1, 3), Float64Array.of(0, 1e6));
  assertEquals(agreements, Float64Array.of(1, 0, 0, 1, 1, 0));
});

Deno.test("sumSquares adds squares", () => {
  assertEquals(sumSquares(Float64Array.of(3, -4)), 25);
  assertEquals(sumSquares(new Float64Array(0)), 0);
});

Deno.test("clipCoefficient shortens only gradients above the norm", () => {
  assertEquals([0, 0.5, 2, 8].map((norm) => clipCoefficient(norm, 2)), [1, 1, 1, 0.25]);
});

const settings = {
  learningRate: 0.1,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 0,
  weightDecay: 0,
  clip: 1,
};

Deno.test("adamw moves by the learning rate in the first step, whatever the gradient's size", () => {
  const zero = new Float64Array(2);
  const state = {
    weight: Float64Array.of(1, 1),
    gradient: Float64Array.of(1e-6, -50),
    firstMoment: zero,
    secondMoment: zero,
  };
  assertClose(adamw(state, { ...settings, step: 1 }).weight, [0.9, 1.1], {
    relative: 1e-12,
    label: "weight",
  });
});

Deno.test("adamw scales the gradient by clip before both moments", () => {
  const zero = new Float64Array(1);
  const state = { weight: zero, gradient: Float64Array.of(8), firstMoment: zero, secondMoment: zero };
  const { firstMoment, secondMoment } = adamw(state, { ...settings, clip: 0.25, step: 1 });
  assertClose(firstMoment, [0.2], { relative: 1e-12, label: "first moment" });
  assertClose(secondMoment, [0.2], { relative: 1e-12, label: "second moment" });
});

Deno.test("adamw decays the weight apart from the gradient", () => {
  const zero = new Float64Array(1);
  const state = { weight: Float64Array.of(2), gradient: zero, firstMoment: zero, secondMoment: zero };
  const { weight } = adamw(state, { ...settings, epsilon: 1e-8, weightDecay: 0.5, step: 1 });
  assertClose(weight, [2 * (1 - 0.1 * 0.5)], { relative: 1e-15, label: "weight" });
});

Deno.test("adamw corrects the moments' bias by the step", () => {
  const state = {
    weight: Float64Array.of(0),
    gradient: Float64Array.of(1),
    firstMoment: Float64Array.of(0.1),
    secondMoment: Float64Array.of(0.05),
  };
  // A gradient of 1 twice: both corrected moments are 1.
  assertClose(adamw(state, { ...settings, step: 2 }).weight, [-0.1], { relative: 1e-12, label: "weight" });
});
