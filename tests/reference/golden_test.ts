/**
 * The reference model against the golden cases: results of an independent implementation, computed in float64
 * and stored as f32.
 *
 * Rounding to f32 moves a value by at most 6e-8 of itself, so 2e-7 of a tensor's magnitude leaves no room for
 * a real difference.
 */
import { assertEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { type Golden, goldenNames, goldenValues, readGolden } from "../support/golden.ts";
import { decodeGreedily } from "./greedy.ts";
import type { ExpertChoiceStep } from "./expert_choice.ts";
import { lossTerms } from "./loss.ts";
import { globalNorm, train } from "./training.ts";
import { backward, forward } from "./transformer.ts";
import type { Model } from "./weights.ts";

const relative = 2e-7;
const sequences = 2;

function modelOf({ config, weights }: Golden): Model {
  return {
    config,
    weights: new Map(Array.from(weights, ([name, { data }]) => [name, Float64Array.from(data)])),
  };
}

/**
 * Logits of a step spread over all tokens, (B, T), as the golden cases store them: -1e30 where there is no
 * candidate.
 */
function spreadLogits({ router }: ExpertChoiceStep, { count }: { count: number }): Float64Array {
  const { candidates, logits } = router;
  const spread = new Float64Array(count).fill(-1e30);
  candidates.forEach((row, i) => spread[row] = logits[i]!);
  return spread;
}

/** Compares logits of candidates, and who the candidates are. */
function assertSpreadClose(
  actual: Float64Array,
  expected: ArrayLike<number>,
  { label }: { label: string },
): void {
  const values = Array.from(expected);
  assertEquals(Array.from(actual, (l) => l > -1e29), values.map((l) => l > -1e29), `candidates of ${label}`);
  const candidates = Array.from(values.keys()).filter((i) => values[i]! > -1e29);
  assertClose(candidates.map((i) => actual[i]!), candidates.map((i) => values[i]!), { relative, label });
}

for (const name of goldenNames) {
  const golden = readGolden(name);
  const model = modelOf(golden);
  const ids = goldenValues(golden, "input_ids");
  const targets = goldenValues(golden, "targets");
  const batch = { ids, sequences };
  const tokens = ids.length / sequences;
  const scheme = golden.config.router?.kind;

  Deno.test(`golden ${name}: training-mode logits and loss terms`, () => {
    const tape = forward(model, batch);
    assertClose(tape.logits, goldenValues(golden, "logits"), { relative, label: "logits" });
    const losses = lossTerms(model, { tape, targets });
    const expected = {
      loss_ce: losses.crossEntropy,
      loss_total: losses.total,
      ...scheme === "expert_choice" && { loss_auxiliary: losses.auxiliary },
      ...scheme === "token_choice" && { loss_balancing: losses.balancing },
      ...scheme && { loss_z: losses.z },
    };
    for (const [label, value] of Object.entries(expected)) {
      assertClose([value], goldenValues(golden, label), { relative, label });
    }
  });

  if (scheme === "expert_choice") {
    Deno.test(`golden ${name}: chosen tokens, gates and router logits of every step`, () => {
      const { steps } = forward(model, batch);
      assertEquals(steps.length, golden.config.recursion!.numRecursions);
      steps.forEach((step, r) => {
        const positions = step.indices.map((row) => row % tokens);
        assertEquals(positions, goldenValues(golden, `selected.${r}`), `selected.${r}`);
        assertClose(step.weights, goldenValues(golden, `gates.${r}`), { relative, label: `gates.${r}` });
        const label = `router_logits.${r}`;
        assertSpreadClose(spreadLogits(step, { count: ids.length }), goldenValues(golden, label), { label });
      });
    });
  }

  if (scheme === "token_choice") {
    Deno.test(`golden ${name}: router logits, probabilities, depths and gates`, () => {
      const { depths, tokenChoice } = forward(model, batch);
      const { router, choice, balance } = tokenChoice!;
      assertEquals(depths, goldenValues(golden, "depth"));
      assertEquals(choice.depths, depths);
      assertEquals(balance.load, goldenValues(golden, "load_counts"));
      const results = {
        router_logits: router.logits,
        probabilities: choice.probabilities,
        gates: choice.gates,
      };
      for (const [label, values] of Object.entries(results)) {
        assertClose(values, goldenValues(golden, label), { relative, label });
      }
    });
  }

  Deno.test(`golden ${name}: gradient of every weight`, () => {
    const gradients = backward(model, { tape: forward(model, batch), targets });
    assertEquals(Array.from(gradients.keys()).sort(), Array.from(golden.weights.keys()).sort());
    for (const [weight, gradient] of gradients) {
      const expected = goldenValues(golden, `grad.${weight}`);
      assertClose(gradient, expected, { relative, label: weight });
      assertClose(gradient, expected, { relative, measure: "norm", label: weight });
    }
  });

  Deno.test(`golden ${name}: inference-mode logits, depths and router logits`, () => {
    const tape = forward(model, { ...batch, selection: { kind: "threshold", threshold: 0 } });
    assertClose(tape.logits, goldenValues(golden, "logits_causal"), { relative, label: "logits_causal" });
    if (golden.config.recursion) assertEquals(tape.depths, goldenValues(golden, "depths"));
    tape.steps.forEach((step, r) => {
      const label = `causal_router_logits.${r}`;
      assertSpreadClose(spreadLogits(step, { count: ids.length }), goldenValues(golden, label), { label });
    });
  });

  Deno.test(`golden ${name}: greedy decoding`, () => {
    const expected = goldenValues(golden, "greedy_ids");
    const prompt = goldenValues(golden, "greedy_prompt");
    assertEquals(decodeGreedily(model, { prompt, count: expected.length }), expected);
  });

  Deno.test(`golden ${name}: six AdamW updates`, () => {
    const settings = {
      steps: 6,
      learningRate: 1e-3,
      beta1: 0.9,
      beta2: 0.95,
      epsilon: 1e-8,
      weightDecay: 0.1,
      maxNorm: 1,
    };
    const { losses, gradientNorms, weights } = train(model, { batch, targets, settings });
    const results = {
      adamw_losses: losses.map(({ total }) => total),
      adamw_losses_ce: losses.map(({ crossEntropy }) => crossEntropy),
      adamw_grad_norms: gradientNorms,
      adamw_final_norm: [globalNorm(weights)],
    };
    for (const [label, values] of Object.entries(results)) {
      assertClose(values, goldenValues(golden, label), { relative, label });
    }
  });
}
