/** Training whose activations are stored in f16: its gradients, its memory, its limits, and how it goes. */
import { assert, assertEquals, assertLess, assertNotEquals } from "@std/assert";
import { planAllocator } from "../../gpu/memory.ts";
import { readTensor } from "../../gpu/readback.ts";
import { writeTensor } from "../../gpu/tensor.ts";
import type { ModelConfig } from "../../model/config.ts";
import type { ActivationDtype } from "../../model/layer_buffers.ts";
import { ParameterLayout } from "../../model/parameter_layout.ts";
import { presetConfig } from "../../model/presets.ts";
import { trainingMemory } from "../../model/training.ts";
import { parameterTensor } from "../../model/weights.ts";
import { allocateWorkspace } from "../../model/workspace.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";
import { ACTIVATION_RUNS, activationRuns, LOSS_TOLERANCE } from "../support/activation_runs.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { batchOf, startTraining, stepShape } from "../support/training_case.ts";
import { traceShape, type TrainingCase, trainingCases, trainingTraces } from "../support/training_trace.ts";

/**
 * A stored number is off by at most 2^-11 of itself, half the distance of neighbours in f16. A gradient passes through
 * some of them in each layer, whose errors are independent and add up as the root of their number: four times as much
 * is allowed for all gradients together, eight times for those of one matrix, where small ones may stand alone.
 */
const ALLOWED = 2 ** -9;
const ALLOWED_OF_ONE = 2 ** -8;

const block = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 3 } as const;

const cases: Record<string, TrainingCase> = {
  ...trainingCases,
  "nine layers": { config: tinyConfig({ numHiddenLayers: 9 }) },
  "expert choice, a block of three layers": {
    config: tinyRecursiveConfig(block, { router: tinyRouter() }),
  },
  "token choice, a block of three layers, shared keys": {
    config: tinyRecursiveConfig(block, { router: tinyTokenRouter(), kvCache: "shared" }),
  },
};

for (const [name, options] of Object.entries(cases)) {
  gpuTest(`activations in f16 change no loss, and gradients by their rounding: ${name}`, async (device) => {
    const common = { ...options, steps: 1 };
    const [f32] = await trainingTraces(device, { ...common, recompute: false, activationDtype: "f32" });
    const expected = new Float32Array(f32!.gradients.buffer);
    for (const recompute of [false, true]) {
      const [f16] = await trainingTraces(device, { ...common, recompute, activationDtype: "f16" });
      // The forward pass is that of f32, by the same kernels.
      assertEquals(f16!.result.losses, f32!.result.losses);
      const gradients = new Float32Array(f16!.gradients.buffer);
      assertClose([f16!.result.gradNorm], [f32!.result.gradNorm], {
        relative: ALLOWED,
        label: "gradient norm",
      });
      const tolerance = { relative: ALLOWED, measure: "norm" } as const;
      assertClose(gradients, expected, { ...tolerance, label: "all gradients" });
      for (const { spec, start } of new ParameterLayout(options.config).places.values()) {
        const end = start + spec.shape.reduce((product, size) => product * size, 1);
        const [met, wanted] = [gradients, expected].map((all) => all.subarray(start, end));
        assertClose(met!, wanted!, { ...tolerance, relative: ALLOWED_OF_ONE, label: spec.name });
      }
      if (!recompute) assertNotEquals(f16!.gradients, f32!.gradients);
    }
  });
}

gpuTest("recomputation from f16 changes no bit where every layer's input is a state", async (device) => {
  const recursion = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
  for (const router of [null, tinyRouter(), tinyTokenRouter()]) {
    const common = { config: tinyRecursiveConfig(recursion, { router }), steps: 3 };
    const kept = await trainingTraces(device, { ...common, recompute: false, activationDtype: "f32" });
    const stored = await trainingTraces(device, { ...common, recompute: true, activationDtype: "f16" });
    assertEquals(stored, kept);
  }
});

/** Bytes that a model's layers keep for a row in f32. */
function wholeRow({ hiddenSize: c, intermediateSize: f, ...heads }: ModelConfig): number {
  const { numAttentionHeads: h, numKeyValueHeads: g, headDim: d } = heads;
  return 4 * (2 * (c + 1) + (h + 2 * g) * d + h * d + h + c + 3 * f + c);
}

/** Those that a layer stores of it in f16, but for its output; `projected` is its projection's width. */
function storedRow(config: ModelConfig, projected: number): number {
  const { hiddenSize: c, intermediateSize: f, numAttentionHeads: h, headDim: d } = config;
  return 2 * (projected + h * d + c + 2 * f) + 4 * h;
}

/** Bytes of a run's buffers. */
function bytesOf(
  config: ModelConfig,
  options: { activationDtype: ActivationDtype; recompute?: boolean },
): number {
  return trainingMemory({ config, shape: traceShape, ...options, evaluationSequences: 2 }).live;
}

/** Bytes that f16 saves. */
function savedBytes(config: ModelConfig): number {
  return bytesOf(config, { activationDtype: "f32" }) - bytesOf(config, { activationDtype: "f16" });
}

const rows = 26;
const { numAttentionHeads, numKeyValueHeads, headDim, hiddenSize } = tinyConfig();
const queries = numAttentionHeads * headDim;
const projection = queries + 2 * numKeyValueHeads * headDim;

/** Buffers are sized in multiples of 16 bytes: the two factors of a layer's norms take some more in f32. */
function factorPadding(count: number): number {
  return 2 * (Math.ceil(count / 4) * 16 - count * 4);
}

Deno.test("f16 keeps half of what cannot be made again, for every layer, and one layer's set in f32", () => {
  const vanilla = tinyConfig();
  const whole = wholeRow(vanilla);
  for (const layers of [1, 2, 3, 9]) {
    const config = { ...vanilla, numHiddenLayers: layers };
    const kept = layers * storedRow(config, projection) + (layers - 1) * 2 * hiddenSize;
    const saved = (layers - 1) * (rows * whole + factorPadding(rows)) - rows * kept;
    assertEquals(savedBytes(config), saved, `${layers} layers`);
  }
});

Deno.test("f16 keeps states, and keys and values that later recursion steps read, in f32", () => {
  const state = 4 * hiddenSize;
  // Two ends, one layer of 13, 6 and 3 tokens in each of two sequences; the largest stays, whose output is the head's.
  const recursion = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
  const mor = tinyRecursiveConfig(recursion, { router: tinyRouter({ capacities: [1, 0.5, 0.25] }) });
  const wholes = [26, 26, 12, 6].reduce(
    (sum, count) => sum + count * wholeRow(mor) + factorPadding(count),
    0,
  );
  const kept = [26, 26, 26, 12, 6].reduce((sum, count) => sum + count * storedRow(mor, projection), 0) +
    [26, 26, 12, 6].reduce((sum, count) => sum + count * state, 0);
  assertEquals(savedBytes(mor), wholes - kept);

  // Four steps of two layers; only the last step's output is the head's.
  const cycle = { sharing: "cycle", numRecursions: 4, blockLayers: 2 } as const;
  const sharing = tinyRecursiveConfig(cycle, { kvCache: "shared" });
  const whole = wholeRow(sharing) + factorPadding(rows) / rows;
  const later = 6 * (storedRow(sharing, queries) + 4 * (projection - queries));
  const first = 2 * (storedRow(sharing, 0) + 4 * projection);
  const outputs = 4 * 2 * hiddenSize + 3 * state;
  assertEquals(savedBytes(sharing), rows * (7 * whole - later - first - outputs));
});

/** Bytes of a pass's buffers with so many layers of the paper's smallest model. */
function passBytes(layers: number, activationDtype: ActivationDtype): number {
  const plan = planAllocator();
  allocateWorkspace(plan, {
    config: { ...presetConfig("135m-vanilla"), numHiddenLayers: layers },
    shape: { lengths: [2048], routing: "top-k", backward: true, activationDtype, head: "losses" },
  });
  return plan.memory.live;
}

Deno.test("a layer of 135m keeps a third in f16 of what it keeps in f32", () => {
  const config = presetConfig("135m-vanilla");
  const ofLayer = (dtype: ActivationDtype): number => (passBytes(30, dtype) - passBytes(20, dtype)) / 10;
  const [whole, stored] = [ofLayer("f32"), ofLayer("f16")];
  assertEquals(whole, 2048 * wholeRow(config));
  assertEquals(stored, 2048 * (storedRow(config, 960) + 2 * config.hiddenSize));
  assertClose([stored / whole], [0.342], { relative: 0.01, label: "part" });
});

Deno.test("activations in f16 leave evaluation as it is, and take less with recomputation than without", () => {
  for (const model of ["tiny-vanilla", "tiny-rec3", "tiny-mor3", "tiny-tok3", "135m-mor3"]) {
    const config = presetConfig(model);
    const evaluation = (["f32", "f16"] as const).map((activationDtype) => {
      const options = { config, shape: traceShape, activationDtype };
      return trainingMemory({ ...options, evaluationSequences: 2 }).live -
        trainingMemory({ ...options, evaluationSequences: 0 }).live;
    });
    assertEquals(evaluation[1], evaluation[0], model);
    const f16 = bytesOf(config, { activationDtype: "f16" });
    const both = bytesOf(config, { activationDtype: "f16", recompute: true });
    assertLess(f16, bytesOf(config, { activationDtype: "f32" }), model);
    assertLess(both, f16, model);
    const recomputed = bytesOf(config, { activationDtype: "f32", recompute: true });
    assert(both <= recomputed, `${model}: ${both} bytes with both, ${recomputed} with recomputation alone`);
  }
});

/** A matrix whose product goes beyond 65504 once it is so many times itself, in the first of three layers. */
const overflows: Readonly<Record<string, readonly [matrix: string, factor: number]>> = {
  "queries": ["self_attn.q_proj", 1e7],
  "keys": ["self_attn.k_proj", 1e7],
  "values, what is attended and the state after it": ["self_attn.v_proj", 1e7],
  "the state after attention": ["self_attn.o_proj", 1e9],
  "gates": ["mlp.gate_proj", 1e7],
  "what is gated": ["mlp.up_proj", 1e7],
  "the output": ["mlp.down_proj", 1e9],
};

for (const [what, [matrix, factor]] of Object.entries(overflows)) {
  gpuTest(`numbers that f16 cannot hold make the gradient no number: ${what}`, async (device) => {
    const config = presetConfig("tiny-vanilla");
    const norms: number[] = [];
    for (const activationDtype of ["f32", "f16"] as const) {
      const { buffers: { layout, weights }, programs } = startTraining(device, { config, activationDtype });
      const tensor = parameterTensor(layout, weights, `model.layers.0.${matrix}.weight`);
      const values = await readTensor(device, tensor) as Float32Array<ArrayBuffer>;
      writeTensor(device, tensor, values.map((value) => value * factor));
      const step = { learningRate: 0, step: 0, seed: 3 };
      const { losses, gradNorm } = await programs.step([batchOf(stepShape)], step);
      // The forward pass is f32's: the gradient alone shows it.
      assert(Number.isFinite(losses.total), `loss ${losses.total}`);
      norms.push(gradNorm);
    }
    const [f32, f16] = norms as [number, number];
    assert(Number.isFinite(f32), `gradient norm ${f32} in f32`);
    assert(!Number.isFinite(f16), `gradient norm ${f16} in f16`);
  });
}

for (const preset of ACTIVATION_RUNS) {
  // `deno task bench activations` goes on to 300 steps.
  gpuTest(`the loss of 60 steps with activations in f16 is that of f32: ${preset}`, async (device) => {
    const pairs = await activationRuns(device, { preset, steps: 60 });
    assertLess(pairs.at(-1)!.f32, pairs[0]!.f32 / 2);
    for (const [i, { f32, f16, deviation }] of pairs.entries()) {
      assertLess(deviation, LOSS_TOLERANCE, `step ${i + 1}: loss ${f16}, ${f32} in f32`);
    }
  });
}
