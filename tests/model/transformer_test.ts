/**
 * The model on the device against the float64 reference, for every way to gate and to score. Tolerances are those of the
 * golden cases: 2e-4 of the largest value on logits and losses, 2e-3 of a tensor's norm on gradients.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { planAllocator } from "../../gpu/memory.ts";
import {
  ConfigError,
  type ExpertChoiceConfig,
  type ModelConfig,
  type RecursionConfig,
  type RouterConfig,
} from "../../model/config.ts";
import { forwardCausal, type ForwardInput, forwardTopK } from "../../model/forward.ts";
import { allocateWorkspace } from "../../model/workspace.ts";
import { lossTerms as referenceLosses } from "../reference/loss.ts";
import { randomIds, tinyConfig, tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import { backward, forward } from "../reference/transformer.ts";
import type { Model } from "../reference/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { readTensors } from "../support/golden.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const VALUES = 2e-4;
const GRADIENTS = 2e-3;

const sequences = 2;
const tokens = 13;

const middleCycle: RecursionConfig = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 };
const cycle: RecursionConfig = { sharing: "cycle", numRecursions: 2, blockLayers: 2 };

const losses = { auxiliary: "loss", auxiliaryCoefficient: 0.1 } as const;

/** Every gating with every function, the other options under several of them. */
const routers: readonly (Partial<ExpertChoiceConfig> & { readonly isCycle?: boolean })[] = [
  { gating: "weighted", function: "sigmoid" },
  { gating: "weighted", function: "tanh", alpha: 1, temperature: 2, ...losses, zCoefficient: 0.05 },
  { gating: "weighted", function: "none", alpha: 1, capacities: [0.9, 0.3], ...losses, isCycle: true },
  {
    gating: "additive",
    function: "sigmoid",
    temperature: 2,
    capacities: [0.9, 0.3],
    ...losses,
    isCycle: true,
  },
  { gating: "additive", function: "tanh", alpha: 1, ...losses, zCoefficient: 0.05 },
  { gating: "additive", function: "none", alpha: 1, temperature: 2, auxiliary: "none" },
  { gating: "replace", function: "sigmoid", ...losses },
  { gating: "replace", function: "tanh", alpha: 1, auxiliary: "none", zCoefficient: 0.05, isCycle: true },
  { gating: "replace", function: "none", alpha: 1, capacities: [0.8, 0.8, 0.05], ...losses },
  { gating: "delta", function: "sigmoid", temperature: 2, capacities: [0.8, 0.8, 0.05], auxiliary: "none" },
  { gating: "delta", function: "tanh", alpha: 1, ...losses, zCoefficient: 0.05 },
  { gating: "delta", function: "none", alpha: 1, temperature: 2, ...losses, isCycle: true },
];

/** Routed models with and without unshared ends, every third with a head of its own. */
function routedConfigs(): Record<string, ModelConfig> {
  return Object.fromEntries(routers.map(({ isCycle = false, ...changes }, i) => {
    const changed = { router: tinyRouter(changes), tieWordEmbeddings: i % 3 !== 1 };
    const title = Object.entries(changes).map(([key, value]) => `${key} ${value}`).join(", ");
    return [title, tinyRecursiveConfig(isCycle ? cycle : middleCycle, changed)];
  }));
}

const configs: Record<string, ModelConfig> = {
  "vanilla with a head of its own": tinyConfig({ tieWordEmbeddings: false }),
  "recursive cycle": tinyRecursiveConfig(cycle),
  "recursive middle_cycle with a head of its own": tinyRecursiveConfig(middleCycle, {
    tieWordEmbeddings: false,
  }),
  ...routedConfigs(),
};

/** (B, T) ids as nested lists. */
function nested(flat: ArrayLike<number>, width = tokens): number[][] {
  return Array.from(
    { length: flat.length / width },
    (_, b) => Array.from(flat).slice(b * width, (b + 1) * width),
  );
}

function inputOf(
  { config }: Model,
  seed: number,
): { ids: Int32Array; targets: Int32Array; input: ForwardInput } {
  const random = createRandom(seed);
  const ids = randomIds(config, { random, count: sequences * tokens });
  const targets = randomIds(config, { random, count: sequences * tokens });
  return { ids, targets, input: { ids: nested(ids), targets: nested(targets) } };
}

for (const [name, config] of Object.entries(configs)) {
  gpuTest(`logits, losses and gradients match the reference: ${name}`, async (device) => {
    const model = roundedModel(config, { seed: 21 });
    const { ids, targets, input } = inputOf(model, 22);
    const gradientsPath = await Deno.makeTempFile({ suffix: ".safetensors" });
    try {
      const result = await forwardTopK(device, { model: uploadModel(device, model), input, gradientsPath });
      const tape = forward(model, { ids, sequences });
      assertClose(result.logits.flat(2), tape.logits, { relative: VALUES, label: "logits" });
      const depths = config.recursion ? nested(tape.depths) : null;
      assertEquals(result.depths, depths);
      const selected = tape.steps.map(({ indices }) =>
        [0, 1].map((b) =>
          [...indices].filter((row) => Math.floor(row / tokens) === b).map((row) => row % tokens)
        )
      );
      assertEquals(result.selected, config.router ? selected : null);

      const { ce, auxiliary, z, total } = result.losses!;
      const wanted = referenceLosses(model, { tape, targets });
      const tolerance = { relative: VALUES, label: "losses" };
      assertClose([ce, total], [wanted.crossEntropy, wanted.total], tolerance);
      if (config.router) assertClose([auxiliary!, z!], [wanted.auxiliary, wanted.z], tolerance);
      else assertEquals([auxiliary, z], [null, null]);

      const gradients = readTensors(new URL(`file://${gradientsPath}`));
      for (const [parameter, expected] of backward(model, { tape, targets })) {
        const { data } = gradients.get(parameter)!;
        assertClose(data, expected, { relative: GRADIENTS, measure: "norm", label: parameter });
      }
    } finally {
      await Deno.remove(gradientsPath);
    }
  });

  gpuTest(`causal logits and depths match the reference: ${name}`, async (device) => {
    const model = roundedModel(config, { seed: 21 });
    const { ids, targets, input } = inputOf(model, 23);
    const result = await forwardCausal(device, { model: uploadModel(device, model), input });
    const tape = forward(model, { ids, sequences, selection: { kind: "threshold", threshold: 0 } });
    assertClose(result.logits.flat(2), tape.logits, { relative: VALUES, label: "logits" });
    assertEquals(result.depths, config.recursion ? nested(tape.depths) : null);
    const { crossEntropy } = referenceLosses(model, { tape, targets });
    assertClose([result.losses!.ce], [crossEntropy], { relative: VALUES, label: "cross-entropy" });
    assertEquals([result.losses!.auxiliary, result.losses!.z], [null, null]);
  });
}

const unsupported: Record<string, ModelConfig> = {
  "recursion.sharing sequence": tinyRecursiveConfig({ ...cycle, sharing: "sequence" }),
  "recursion.sharing middle_sequence": tinyRecursiveConfig({ ...middleCycle, sharing: "middle_sequence" }),
  "router.kind token_choice": tinyRecursiveConfig(cycle, {
    router: { kind: "token_choice" } as RouterConfig,
  }),
  "router.architecture mlp": tinyRecursiveConfig(cycle, { router: tinyRouter({ architecture: "mlp" }) }),
  "router.auxiliary router": tinyRecursiveConfig(cycle, { router: tinyRouter({ auxiliary: "router" }) }),
  "kv_cache shared": tinyRecursiveConfig(cycle, { kvCache: "shared" }),
};

const shape = { sequences, tokens, routing: "causal", backward: false, head: "all" } as const;

for (const [name, config] of Object.entries(unsupported)) {
  Deno.test(`allocateWorkspace refuses ${name} by name before it takes memory`, () => {
    const plan = planAllocator();
    const message = `${name} is not part of this version`;
    assertThrows(() => allocateWorkspace(plan, { config, shape }), ConfigError, message);
    assertEquals(plan.memory.peak, 0);
  });
}

Deno.test("allocateWorkspace refuses more tokens than the model has positions", () => {
  const long = { ...shape, tokens: 65 };
  const message = "Cannot run 65 tokens: the model has 64 positions";
  assertThrows(
    () => allocateWorkspace(planAllocator(), { config: tinyConfig(), shape: long }),
    ConfigError,
    message,
  );
  allocateWorkspace(planAllocator(), { config: tinyConfig(), shape: { ...shape, tokens: 64 } });
});
