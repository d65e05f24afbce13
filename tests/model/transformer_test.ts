/**
 * The model on the device against the float64 reference, for every scheme. Tolerances are those of the golden cases:
 * 2e-4 of the largest value on logits and losses, 2e-3 of a tensor's norm on gradients.
 */
import { assertEquals, assertGreater, assertThrows } from "@std/assert";
import { planAllocator } from "../../gpu/memory.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { forwardCached, forwardCausal, type ForwardInput, forwardTopK } from "../../model/forward.ts";
import { ROUTER_BIAS } from "../../model/parameters.ts";
import type { LossTerms } from "../../model/training.ts";
import { allocateWorkspace } from "../../model/workspace.ts";
import { type LossTerms as ReferenceTerms, lossTerms as referenceLosses } from "../reference/loss.ts";
import { randomIds, tinyConfig } from "../reference/tiny_model.ts";
import { backward, forward, type ModelTape } from "../reference/transformer.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { readTensors } from "../support/golden.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";
import { schemes } from "../support/schemes.ts";

const VALUES = 2e-4;
const GRADIENTS = 2e-3;

/** Of weights whose routers, in every scheme, send tokens of the batches to more than one depth. */
const SEED = 26;

const sequences = 2;
const tokens = 13;

/** (B, T) values as nested lists. */
function nested(flat: ArrayLike<number>): number[][] {
  return Array.from(
    { length: sequences },
    (_, b) => Array.from(flat).slice(b * tokens, (b + 1) * tokens),
  );
}

/** A batch; no sequence starts with a token twice, because routers cannot tell two such tokens apart. */
function batchOf(
  config: ModelConfig,
  seed: number,
): { ids: number[]; targets: number[]; input: ForwardInput } {
  const random = createRandom(seed);
  const draw = (): number[] => Array.from(randomIds(config, { random, count: sequences * tokens }));
  let ids = draw();
  while (nested(ids).some(([first, second]) => first === second)) ids = draw();
  const targets = draw();
  return { ids, targets, input: { ids: nested(ids), targets: nested(targets) } };
}

/** Positions that each recursion step ran: (step, row, kept). */
function selectedBy({ steps, tokenChoice }: ModelTape): number[][][] {
  return [...steps, ...tokenChoice?.steps ?? []].map(({ indices }) =>
    Array.from(
      { length: sequences },
      (_, b) =>
        Array.from(indices).filter((row) => Math.floor(row / tokens) === b).map((row) => row % tokens),
    )
  );
}

/** Checks every loss term that the configuration has, and that it has no other; causal expert choice has none. */
function assertLosses(
  actual: LossTerms,
  { expected, config, isCausal = false }: {
    expected: ReferenceTerms;
    config: ModelConfig;
    isCausal?: boolean;
  },
): void {
  const kind = config.router?.kind === "expert_choice" && isCausal ? null : config.router?.kind;
  const { crossEntropy: ce, auxiliary, balancing, z, total } = expected;
  const terms = {
    ce,
    auxiliary: kind === "expert_choice" ? auxiliary : null,
    balancing: kind === "token_choice" ? balancing : null,
    z: kind ? z : null,
    total: kind ? total : ce,
  };
  for (const name of ["ce", "auxiliary", "balancing", "z", "total"] as const) {
    const [met, wanted] = [actual[name], terms[name]];
    if (met === null || wanted === null) assertEquals(met, wanted, name);
    else assertClose([met], [wanted], { relative: VALUES, label: name });
  }
}

for (const [name, config] of Object.entries(schemes())) {
  gpuTest(`logits, losses and gradients match the reference: ${name}`, async (device) => {
    const model = roundedModel(config, { seed: SEED });
    const { ids, targets, input } = batchOf(config, 22);
    const gradientsPath = await Deno.makeTempFile({ suffix: ".safetensors" });
    try {
      const result = await forwardTopK(device, { model: uploadModel(device, model), input, gradientsPath });
      const tape = forward(model, { ids, sequences });
      if (config.router) assertGreater(new Set(tape.depths).size, 1);
      assertEquals(result.depths, config.recursion && nested(tape.depths));
      assertEquals(result.selected, config.router && selectedBy(tape));
      assertClose(result.logits.flat(2), tape.logits, { relative: VALUES, label: "logits" });
      assertLosses(result.losses!, { expected: referenceLosses(model, { tape, targets }), config });
      const gradients = readTensors(new URL(`file://${gradientsPath}`));
      const expected = backward(model, { tape, targets });
      const untrained = gradients.get(ROUTER_BIAS)?.data ?? [];
      assertEquals(untrained.every((value) => value === 0), true, "the bias has a gradient");
      assertEquals(new Set([...expected.keys(), ROUTER_BIAS]), new Set([...gradients.keys(), ROUTER_BIAS]));
      for (const [parameter, gradient] of expected) {
        const { data } = gradients.get(parameter)!;
        assertClose(data, gradient, { relative: GRADIENTS, measure: "norm", label: parameter });
      }
    } finally {
      await Deno.remove(gradientsPath);
    }
  });

  gpuTest(
    `causal logits, depths and losses match the reference, with and without a cache: ${name}`,
    async (device) => {
      const model = roundedModel(config, { seed: SEED });
      const { ids, targets, input } = batchOf(config, 23);
      const uploaded = uploadModel(device, model);
      const result = await forwardCausal(device, { model: uploaded, input });
      const tape = forward(model, { ids, sequences, selection: { kind: "threshold", threshold: 0 } });
      if (config.router) assertGreater(new Set(tape.depths).size, 1);
      assertEquals(result.depths, config.recursion && nested(tape.depths));
      assertEquals(result.selected, config.router && selectedBy(tape));
      assertClose(result.logits.flat(2), tape.logits, { relative: VALUES, label: "logits" });
      const expected = referenceLosses(model, { tape, targets });
      assertLosses(result.losses!, { expected, config, isCausal: true });
      for (const split of [0, 1, 6, tokens]) {
        const cached = await forwardCached(device, { model: uploaded, input, split });
        assertEquals(cached.depths, result.depths, `depths at split ${split}`);
        assertEquals(cached.selected, result.selected, `tokens of each step at split ${split}`);
        const label = `logits at split ${split}`;
        assertClose(cached.logits.flat(2), result.logits.flat(2), { relative: VALUES, label });
        assertClose([cached.losses!.ce], [expected.crossEntropy], {
          relative: VALUES,
          label: "cross-entropy",
        });
      }
    },
  );
}

const shape = { lengths: [13, 13], routing: "causal", backward: false, head: "all" } as const;

Deno.test("allocateWorkspace refuses more tokens than the model has positions before it takes memory", () => {
  const config = tinyConfig();
  const plan = planAllocator();
  const long = { ...shape, lengths: [3, 65] };
  const message = "Cannot run 65 tokens: the model has 64 positions";
  assertThrows(() => allocateWorkspace(plan, { config, shape: long }), ConfigError, message);
  assertEquals(plan.memory.peak, 0);
  allocateWorkspace(plan, { config, shape: { ...shape, lengths: [3, 64] } });
});
