/** Properties of token choice, shown on the reference. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { ModelConfig, TokenChoiceConfig } from "../../model/config.ts";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { lossTerms } from "./loss.ts";
import { row } from "./rows.ts";
import { layerPlan } from "./sharing.ts";
import { stackForward } from "./stack.ts";
import { randomIds, randomModel, tinyConfig, tinyRecursiveConfig, tinyTokenRouter } from "./tiny_model.ts";
import { train } from "./training.ts";
import { backward, forward } from "./transformer.ts";
import { type Model, routerBias } from "./weights.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const kvCaches = ["recursion_wise", "shared"] as const;
const ids = randomIds(tinyConfig(), { random: createRandom(141), count: 26 });
const batch = { ids, sequences: 2 };
const tokens = 13;
const tolerance = { relative: 1e-12 };

function tokenModel(
  changes: Partial<TokenChoiceConfig> = {},
  { kvCache = "recursion_wise" }: Partial<ModelConfig> = {},
): Model {
  const config = tinyRecursiveConfig(middleCycle, { router: tinyTokenRouter(changes), kvCache });
  return randomModel(config, { random: createRandom(140) });
}

/** The same model with every token sent to the largest depth. */
function atFullDepth({ config, weights }: Model): Model {
  const router = { ...config.router as TokenChoiceConfig, balancing: "loss_free" as const };
  return {
    config: { ...config, router },
    weights: new Map([...weights, [routerBias, Float64Array.of(0, 0, 9)]]),
  };
}

for (const kvCache of kvCaches) {
  Deno.test(`replace at full depth equals the recursive baseline, ${kvCache}`, () => {
    const model = atFullDepth(tokenModel({ gating: "replace" }, { kvCache }));
    const { weights } = model;
    const baseline = forward({ weights, config: tinyRecursiveConfig(middleCycle, { kvCache }) }, batch);
    const { logits, depths } = forward(model, batch);
    assertEquals(depths, new Int32Array(ids.length).fill(3));
    assertClose(logits, baseline.logits, { ...tolerance, label: "logits" });
  });

  Deno.test(`editing a token leaves all earlier logits bit-identical, ${kvCache}`, () => {
    const model = tokenModel({}, { kvCache });
    const { logits, depths } = forward(model, batch);
    assertEquals(new Set(depths).size, 3);
    for (let edited = 0; edited < tokens; edited++) {
      const other = ids.slice();
      other[edited] = (other[edited]! + 1) % model.config.vocabSize;
      const { logits: changed } = forward(model, { ids: other, sequences: 2 });
      const before = edited * model.config.vocabSize;
      assertEquals(changed.slice(0, before), logits.slice(0, before));
      assertNotEquals(changed.slice(before), logits.slice(before));
    }
  });

  Deno.test(`a sequence's logits do not depend on the other sequences of the batch, ${kvCache}`, () => {
    const model = tokenModel({}, { kvCache });
    const alone = [ids.slice(0, tokens), ids.slice(tokens)].flatMap((sequence) =>
      Array.from(forward(model, { ids: sequence, sequences: 1 }).logits)
    );
    assertEquals(forward(model, batch).logits, Float64Array.from(alone));
  });

  Deno.test(`the block's layers hold the keys that their cache will: ${kvCache}`, () => {
    const { depths, tokenChoice } = forward(tokenModel({}, { kvCache }), batch);
    const owners = tokenChoice!.steps.flatMap(({ block }) => block.tapes).filter(({ attention }) =>
      !attention.isBorrowing
    );
    const entries = owners.reduce((sum, { attention }) => sum + attention.k.length / 4, 0);
    const total = depths.reduce((sum, depth) => sum + depth);
    assertEquals(entries, kvCache === "shared" ? ids.length : total);
  });
}

Deno.test("additive at full depth adds the last output alone: x + Block^N(x)", () => {
  const model = atFullDepth(tokenModel({ gating: "additive" }));
  const { before, tokenChoice } = forward(model, batch);
  const { packing } = before.tapes[0]!;
  const { block } = layerPlan(middleCycle);
  const z = stackForward(model, { x: before.out, layers: [...block, ...block, ...block], packing }).out;
  const expected = before.out.map((x, at) => x + z[at]!);
  assertClose(tokenChoice!.out, expected, { ...tolerance, label: "state" });
});

Deno.test("one recursion with replace equals a vanilla Transformer of the same weights", () => {
  const recursion = { sharing: "middle_cycle", numRecursions: 1, blockLayers: 2 } as const;
  const config = tinyRecursiveConfig(recursion, { router: tinyTokenRouter({ gating: "replace" }) });
  const model = randomModel(config, { random: createRandom(142) });
  const vanilla = forward({ ...model, config: tinyConfig({ numHiddenLayers: 4 }) }, batch);
  assertClose(forward(model, batch).logits, vanilla.logits, { ...tolerance, label: "logits" });
});

Deno.test("steps run the tokens of their depth and more, and leave the others as they are", () => {
  const { depths, tokenChoice } = forward(tokenModel(), batch);
  const { steps, z, choice } = tokenChoice!;
  assertEquals(depths, choice.depths);
  assertEquals(steps[0]!.indices, Int32Array.from(ids.keys()));
  steps.forEach(({ x, indices, lengths }, r) => {
    assertEquals(indices, Int32Array.from(depths.keys().filter((index) => depths[index]! >= r + 1)));
    const counts = [0, 1].map((b) => indices.filter((index) => Math.floor(index / tokens) === b).length);
    assertEquals(lengths, Int32Array.from(counts));
    const next = steps[r + 1]?.x ?? z;
    for (let index = 0; index < ids.length; index++) {
      const isSame = row(x, { index, width: 8 }).every((value, c) => value === next[index * 8 + c]);
      assertEquals(isSame, !indices.includes(index), `row ${index} of step ${r}`);
    }
  });
});

Deno.test("balancing loss and z-loss are means over all tokens of the batch", () => {
  const changes = { balancingCoefficient: 0.3, zCoefficient: 0.05, alpha: 0.7 };
  for (const name of ["softmax", "sigmoid"] as const) {
    const model = tokenModel({ ...changes, function: name });
    const tape = forward(model, batch);
    const { router: { logits }, choice: { depths } } = tape.tokenChoice!;
    let balancing = 0;
    let z = 0;
    for (let t = 0; t < ids.length; t++) {
      const exponentials = [0, 1, 2].map((j) => Math.exp(logits[3 * t + j]!));
      const sum = exponentials[0]! + exponentials[1]! + exponentials[2]!;
      z += Math.log(sum) ** 2 / ids.length;
      exponentials.forEach((value, j) => {
        const share = name === "softmax" ? value / sum : value / (1 + value);
        const count = depths.filter((depth) => depth === j + 1).length;
        balancing += 3 * count / ids.length * 0.7 * share / ids.length;
      });
    }
    const losses = lossTerms(model, { tape, targets: ids });
    const total = losses.crossEntropy + 0.3 * balancing + 0.05 * z;
    assertClose([losses.balancing, losses.z, losses.total], [balancing, z, total], {
      ...tolerance,
      label: `${name} losses`,
    });
  }
});

Deno.test("the bias of loss-free balancing moves depths alone and is not trained", () => {
  const model = tokenModel({ balancing: "loss_free", balancingCoefficient: 9, zCoefficient: 0 });
  const moved = { ...model, weights: new Map(model.weights).set(routerBias, Float64Array.of(0.2, 0, 0)) };
  const [tape, other] = [forward(model, batch), forward(moved, batch)];
  assertNotEquals(tape.depths, other.depths);
  assertEquals(tape.tokenChoice!.choice.probabilities, other.tokenChoice!.choice.probabilities);
  const { choice } = other.tokenChoice!;
  const chosen = Float64Array.from(choice.depths, (depth, t) => choice.probabilities[3 * t + depth - 1]!);
  assertEquals(choice.gates, chosen);
  const losses = lossTerms(model, { tape, targets: ids });
  assertEquals(losses.total, losses.crossEntropy);
  assert(!backward(model, { tape, targets: ids }).has(routerBias));
  const settings = {
    steps: 2,
    learningRate: 0.01,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weightDecay: 0.1,
    maxNorm: 1,
  };
  const { weights } = train(model, { batch, targets: ids, settings });
  assertEquals(weights.get(routerBias), model.weights.get(routerBias));
  assertNotEquals(weights.get("model.router.weight"), model.weights.get("model.router.weight"));
});

for (const gating of ["additive", "replace"] as const) {
  Deno.test(`${gating} gating without router losses leaves the router without a gradient`, () => {
    const model = tokenModel({ gating, balancing: "none", zCoefficient: 0 });
    const gradients = backward(model, { tape: forward(model, batch), targets: ids });
    assertEquals(gradients.get("model.router.weight"), new Float64Array(24));
  });
}
