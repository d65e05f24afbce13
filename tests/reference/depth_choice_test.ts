import { assertEquals, assertNotEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { assertGradient } from "./central_differences.ts";
import { balancingLoss, depthLoad, updateBias } from "./depth_balance.ts";
import { depthChoice, depthChoiceBackward, type DepthChoiceSettings } from "./depth_choice.ts";
import { dot } from "./rows.ts";

const noBias = new Float64Array(3);

for (const name of ["softmax", "sigmoid", "none"] as const) {
  for (const forced of [0, 2]) {
    const title = forced === 0 ? "" : " at a forced depth";
    Deno.test(`depthChoice ${name} gradient matches central differences${title}`, () => {
      const random = createRandom(62);
      const settings = {
        function: name,
        recursions: 3,
        alpha: 0.7,
        balancingCoefficient: 0.3,
        zCoefficient: 0.05,
      };
      const tokens = 9;
      const logits = random.normals(tokens * 3, 2);
      const bias = Float64Array.of(0.1, -0.2, 0.3);
      const gradGates = random.normals(tokens);
      const { depths, probabilities } = depthChoice({ logits, bias, forced }, settings);
      const { load } = depthLoad({ depths, probabilities }, settings);
      function loss(): number {
        const choice = depthChoice({ logits, bias, forced }, settings);
        const { means } = depthLoad(choice, settings);
        const z = choice.squares.reduce((sum, square) => sum + square, 0) / tokens;
        return dot(gradGates, choice.gates) + settings.balancingCoefficient * balancingLoss({ load, means }) +
          settings.zCoefficient * z;
      }
      assertGradient(depthChoiceBackward({ gradGates, logits, depths, load }, settings), {
        loss,
        x: logits,
        label: "logits",
      });
    });
  }
}

Deno.test("depthChoice takes the largest probability, ties to the lowest depth, unless a depth is forced", () => {
  const logits = Float64Array.of(1, 3, 2, 5, 5, 5, -1, -2, 0);
  const settings: DepthChoiceSettings = { function: "softmax", recursions: 3, alpha: 1 };
  assertEquals(depthChoice({ logits, bias: noBias }, settings).depths, Int32Array.of(2, 1, 3));
  assertEquals(depthChoice({ logits, bias: noBias, forced: 3 }, settings).depths, Int32Array.of(3, 3, 3));
});

Deno.test("depthChoice has probabilities, gates and squares by the formulas", () => {
  const logits = Float64Array.of(0, Math.log(2), Math.log(5));
  const of = (settings: Omit<DepthChoiceSettings, "recursions">): ReturnType<typeof depthChoice> =>
    depthChoice({ logits, bias: noBias }, { recursions: 3, ...settings });
  const check = (actual: ArrayLike<number>, expected: readonly number[]): number =>
    assertClose(actual, expected, { relative: 1e-14, label: "values" });
  check(of({ function: "softmax", alpha: 2 }).probabilities, [0.25, 0.5, 1.25]);
  check(of({ function: "sigmoid", alpha: 6 }).probabilities, [3, 4, 5]);
  check(of({ function: "none", alpha: 2 }).probabilities, [0, 2 * Math.log(2), 2 * Math.log(5)]);
  check(of({ function: "sigmoid", alpha: 6 }).gates, [5]);
  check(of({ function: "none", alpha: 1 }).squares, [Math.log(8) ** 2]);
});

Deno.test("the bias changes the depth but not the gate, and has no gradient", () => {
  const settings = {
    function: "softmax",
    recursions: 3,
    alpha: 1,
    balancingCoefficient: 0.1,
    zCoefficient: 0.01,
  } as const;
  const logits = Float64Array.of(0.2, 0.1, 0);
  const free = depthChoice({ logits, bias: noBias }, settings);
  const biased = depthChoice({ logits, bias: Float64Array.of(0, 0, 0.5) }, settings);
  assertEquals([...free.depths, ...biased.depths], [1, 3]);
  assertEquals(biased.probabilities, free.probabilities);
  assertEquals(biased.gates, free.probabilities.subarray(2));
  // The same depth by a smaller bias: nothing else may differ.
  const other = depthChoice({ logits, bias: Float64Array.of(0, 0, 0.4) }, settings);
  assertEquals(other, biased);
  assertNotEquals(other.gates, free.gates);
});

/** Logits that favour each of the three depths as often, by 1e-9. */
const balanced = Float64Array.of(1e-9, 0, 0, 0, 1e-9, 0, 0, 0, 1e-9);

Deno.test("balancingLoss is alpha (softmax) or alpha R / 2 (sigmoid) in balance, R when collapsed", () => {
  const check = (logits: Float64Array, settings: DepthChoiceSettings, expected: number): void => {
    const choice = depthChoice({ logits, bias: noBias }, settings);
    const label = `${settings.function} loss`;
    assertClose([balancingLoss(depthLoad(choice, settings))], [expected], { relative: 1e-8, label });
  };
  check(balanced, { function: "softmax", recursions: 3, alpha: 0.7 }, 0.7);
  check(balanced, { function: "sigmoid", recursions: 3, alpha: 0.7 }, 0.7 * 3 / 2);
  check(Float64Array.of(99, 0, 0, 99, 0, 0), { function: "softmax", recursions: 3, alpha: 1 }, 3);
  check(new Float64Array(0), { function: "softmax", recursions: 3, alpha: 1 }, 0);
});

Deno.test("updateBias raises what is below the mean load and lowers what is above", () => {
  const bias = Float64Array.of(0, 1, 2, 3);
  assertEquals(updateBias({ load: [1, 2, 3, 2], bias }, { rate: 0.5 }), Float64Array.of(0.5, 1, 1.5, 3));
  assertEquals(updateBias({ load: [0, 0, 0, 1], bias }, { rate: 0.5 }), Float64Array.of(0.5, 1.5, 2.5, 2.5));
});
