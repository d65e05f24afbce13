/** Training that runs layers again for their gradients: every bit is that of training that keeps their activations. */
import { assertEquals, assertLess } from "@std/assert";
import type { ModelConfig } from "../../model/config.ts";
import { presetConfig } from "../../model/presets.ts";
import { trainingMemory } from "../../model/training.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import { gpuTest } from "../support/device.ts";
import { traceShape, trainingCases, trainingTraces } from "../support/training_trace.ts";

for (const [name, options] of Object.entries(trainingCases)) {
  gpuTest(`recomputation changes no loss, gradient or weight: ${name}`, async (device) => {
    const common = { ...options, steps: 3, activationDtype: "f32" } as const;
    const kept = await trainingTraces(device, { ...common, recompute: false });
    const recomputed = await trainingTraces(device, { ...common, recompute: true });
    assertEquals(recomputed.map(({ result }) => result), kept.map(({ result }) => result));
    for (const [step, { gradients, weights }] of kept.entries()) {
      assertEquals(recomputed[step]!.gradients, gradients, `gradients of step ${step}`);
      assertEquals(recomputed[step]!.weights, weights, `weights after step ${step}`);
    }
  });
}

/** Bytes of a run's buffers. */
function bytesOf(config: ModelConfig, { recompute }: { recompute: boolean }): number {
  return trainingMemory({ config, shape: traceShape, recompute, evaluationSequences: 2 }).live;
}

/** Bytes that recomputation saves. */
function savedBytes(config: ModelConfig): number {
  return bytesOf(config, { recompute: false }) - bytesOf(config, { recompute: true });
}

/** Numbers that a layer keeps for a row, but for its output: norms and their factors, projection, attention, SwiGLU. */
function keptPerRow(
  { hiddenSize: c, intermediateSize: f, numAttentionHeads: h, numKeyValueHeads: g, headDim: d }: ModelConfig,
  { makesKeys }: { makesKeys: boolean },
): number {
  return 2 * (c + 1) + (h + (makesKeys ? 2 * g : 0)) * d + h * d + h + c + 3 * f;
}

Deno.test("recomputation saves all that layers keep but their outputs, for every layer but one", () => {
  const rows = 26;
  const vanilla = tinyConfig();
  const whole = keptPerRow(vanilla, { makesKeys: true });
  assertEquals(savedBytes({ ...vanilla, numHiddenLayers: 1 }), 0);
  // Buffers are sized in multiples of 16 bytes: the two factors of 26 rows are 8 bytes larger each.
  const padding = 2 * 8;
  for (const layers of [2, 3, 9]) {
    const config = { ...vanilla, numHiddenLayers: layers };
    assertEquals(savedBytes(config), (layers - 1) * (rows * 4 * whole + padding), `${layers} layers`);
  }
  // Two ends, one layer of 13, 6 and 3 tokens in each of two sequences; the largest stays.
  const recursion = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
  const mor = tinyRecursiveConfig(recursion, { router: tinyRouter({ capacities: [1, 0.5, 0.25] }) });
  const factors = (count: number): number => 2 * (Math.ceil(count / 4) * 16 - count * 4);
  const saved = [26, 26, 12, 6].map((count) => count * 4 * whole + factors(count));
  assertEquals(savedBytes(mor), saved.reduce((sum, bytes) => sum + bytes, 0));
});

Deno.test("recomputation keeps the keys and values of the first recursion step where later ones read them", () => {
  const recursion = { sharing: "cycle", numRecursions: 4, blockLayers: 2 } as const;
  const config = tinyRecursiveConfig(recursion, { kvCache: "shared" });
  const [rows, padding] = [26, 2 * 8];
  const { numAttentionHeads: h, numKeyValueHeads: g, headDim: d } = config;
  const [first, later] = [true, false].map((makesKeys) => rows * 4 * keptPerRow(config, { makesKeys }));
  const projection = rows * 4 * (h + 2 * g) * d;
  // The common set, whose projection takes the later steps' queries, comes on top of the two that are kept.
  const expected = 2 * (first! + padding) + 6 * (later! + padding) - (first! + padding) - 2 * projection;
  assertEquals(savedBytes(config), expected);
});

Deno.test("recomputation leaves evaluation as it is", () => {
  for (const model of ["tiny-vanilla", "tiny-rec3", "tiny-mor3", "tiny-tok3"]) {
    const config = presetConfig(model);
    const evaluation = [false, true].map((recompute) => {
      const options = { config, shape: traceShape, recompute };
      return trainingMemory({ ...options, evaluationSequences: 2 }).live -
        trainingMemory({ ...options, evaluationSequences: 0 }).live;
    });
    assertEquals(evaluation[1], evaluation[0], model);
    assertLess(bytesOf(config, { recompute: true }), bytesOf(config, { recompute: false }), model);
  }
});
