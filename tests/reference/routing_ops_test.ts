import { assertEquals, assertThrows } from "@std/assert";
import { createRandom } from "../support/random.ts";
import { assertGradient } from "./central_differences.ts";
import { gate, gateBackward } from "./gate.ts";
import { gatherRows, gatherRowsBackward } from "./gather_rows.ts";
import { routerScore, routerScoreBackward } from "./router_score.ts";
import { dot } from "./rows.ts";
import { scatterRows, scatterRowsBackward } from "./scatter_rows.ts";
import { thresholdChoice } from "./threshold.ts";
import { topK } from "./top_k.ts";

const indicesOf = { "some rows": [0, 2, 5], "one row": [3], "no row": [] };

for (const [name, indices] of Object.entries(indicesOf)) {
  Deno.test(`routerScore gradients match central differences: ${name}`, () => {
    const random = createRandom(50);
    const settings = { temperature: 1.7 };
    const x = random.normals(6 * 5);
    const weight = random.normals(5);
    const gradLogits = random.normals(indices.length);
    const { gradX, gradWeight } = routerScoreBackward({ gradLogits, x, weight, indices }, settings);
    function loss(): number {
      return dot(gradLogits, routerScore({ x, weight, indices }, settings));
    }
    assertGradient(gradX, { loss, x, label: "x" });
    assertGradient(gradWeight, { loss, x: weight, label: "weight" });
  });

  Deno.test(`gatherRows gradient matches central differences: ${name}`, () => {
    const random = createRandom(51);
    const x = random.normals(6 * 3);
    const gradOut = random.normals(indices.length * 3);
    assertGradient(gatherRowsBackward({ gradOut, indices }, { rows: 6, width: 3 }), {
      loss: () => dot(gradOut, gatherRows({ x, indices }, { width: 3 })),
      x,
      label: "x",
    });
  });

  for (const gating of ["weighted", "additive", "replace", "delta"] as const) {
    Deno.test(`scatterRows ${gating} gradients match central differences: ${name}`, () => {
      const random = createRandom(52);
      const settings = { gating, width: 5 };
      const x = random.normals(6 * 5);
      const z = random.normals(indices.length * 5);
      const weights = random.normals(indices.length);
      const gradOut = random.normals(6 * 5);
      const { gradX, gradZ, gradWeights } = scatterRowsBackward(
        { gradOut, x, z, indices, weights },
        settings,
      );
      function loss(): number {
        return dot(gradOut, scatterRows({ x, z, indices, weights }, settings));
      }
      assertGradient(gradX, { loss, x, label: "x" });
      assertGradient(gradZ, { loss, x: z, label: "z" });
      assertGradient(gradWeights, { loss, x: weights, label: "weights" });
    });
  }
}

Deno.test("routerScore divides by the temperature", () => {
  const x = Float64Array.of(1, 2, 3, 4);
  const weight = Float64Array.of(1, 10);
  assertEquals(routerScore({ x, weight, indices: [1, 0] }, { temperature: 2 }), Float64Array.of(21.5, 10.5));
});

Deno.test("scatterRows changes chosen rows by the gating's rule and copies the others", () => {
  const input = {
    x: Float64Array.of(1, 2, 3),
    z: Float64Array.of(10),
    indices: [1],
    weights: Float64Array.of(0.5),
  };
  const expected = { weighted: 7, additive: 12, replace: 10, delta: 6 } as const;
  for (const gating of ["weighted", "additive", "replace", "delta"] as const) {
    assertEquals(scatterRows(input, { gating, width: 1 }), Float64Array.of(1, expected[gating], 3), gating);
  }
});

for (const name of ["sigmoid", "tanh", "none"] as const) {
  Deno.test(`gate ${name} gradient matches central differences`, () => {
    const random = createRandom(53);
    const settings = { function: name, alpha: 0.3 };
    const logits = random.normals(7, 2);
    const chosen = [0, 3, 6];
    const gradWeights = random.normals(3);
    assertGradient(gateBackward({ gradWeights, logits, chosen }, settings), {
      loss: () => dot(gradWeights, gate({ logits, chosen }, settings)),
      x: logits,
      label: "logits",
    });
  });
}

Deno.test("gate scales sigmoid, tanh or the logit itself by alpha", () => {
  const input = { logits: Float64Array.of(0, 3), chosen: [1] };
  assertEquals(gate(input, { function: "none", alpha: 2 }), Float64Array.of(6));
  assertEquals(gate(input, { function: "tanh", alpha: 2 }), Float64Array.of(2 * Math.tanh(3)));
  assertEquals(gate(input, { function: "sigmoid", alpha: 2 }), Float64Array.of(2 / (1 + Math.exp(-3))));
});

Deno.test("topK takes the largest logits of each sequence, ties to the lower index, ascending", () => {
  const logits = Float64Array.of(1, 3, 2, 3, 5, 5, 5, 5, -9, -1, -2, -3);
  assertEquals(topK({ logits }, { candidates: 4, k: 2 }), Int32Array.of(1, 3, 4, 5, 9, 10));
  assertEquals(topK({ logits }, { candidates: 4, k: 4 }), Int32Array.from(logits.keys()));
  assertEquals(topK({ logits: Float64Array.of(7) }, { candidates: 1, k: 1 }), Int32Array.of(0));
});

Deno.test("topK refuses to choose more than there are", () => {
  assertThrows(() => topK({ logits: new Float64Array(4) }, { candidates: 2, k: 3 }), RangeError, "3 of 2");
});

Deno.test("thresholdChoice keeps logits above the threshold and counts them in each sequence", () => {
  const logits = Float64Array.of(1, 0, -1, -2, -3, 4, 5, 6);
  const kept = thresholdChoice({ logits, lengths: [3, 2, 0, 3] }, { threshold: 0 });
  assertEquals(kept.chosen, Int32Array.of(0, 5, 6, 7));
  assertEquals(kept.lengths, Int32Array.of(1, 0, 0, 3));
  assertEquals(kept.spans, Int32Array.of(0, 1, 1, 4, 1, 4, 1, 4));
});
