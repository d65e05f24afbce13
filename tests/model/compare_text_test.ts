/** A text through two models against the float64 reference, window by window. */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { isPacked } from "../../gpu/packed_matrix.ts";
import { type ComparedModel, type ComparedWindow, compareText } from "../../model/compare_text.ts";
import { comparisonReport } from "../../model/comparison_report.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { evaluateText } from "../../model/evaluate_text.ts";
import { evaluationReport } from "../../model/evaluation_report.ts";
import { fillWeights, planWeights } from "../../model/load_weights.ts";
import { decodeNumbers, encodeNumbers } from "../../model/files/number_formats.ts";
import { CheckpointError } from "../../model/files/safetensors.ts";
import { readWeight, type WeightFile } from "../../model/files/weight_file.ts";
import { crossEntropy } from "../reference/cross_entropy.ts";
import * as reference from "../reference/divergence.ts";
import {
  randomIds,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";
import { forward } from "../reference/transformer.ts";
import type { Model } from "../reference/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { memoryWeightFile, seededWeights } from "../support/memory_weights.ts";
import { createRandom } from "../support/random.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const shape = { batchSize: 2, sequenceLength: 8 };

/** Two whole batches and one of windows of 8 and 5 tokens. */
const LENGTHS = [8, 8, 8, 8, 8, 5];

function textOf(config: ModelConfig): Uint32Array<ArrayBuffer> {
  const count = LENGTHS.reduce((sum, length) => sum + length, 1);
  return Uint32Array.from(randomIds(config, { random: createRandom(94), count }));
}

/** The model with every weight moved a little, as by rounding to fewer bits. */
function perturbed({ config, weights }: Model, { deviation }: { deviation: number }): Model {
  const random = createRandom(95);
  const moved = Array.from(
    weights,
    ([name, values]) => [name, values.map((x) => Math.fround(x + deviation * random.normal()))] as const,
  );
  return { config, weights: new Map(moved) };
}

async function compare(
  device: GpuDevice,
  models: { reference: Model; model: Model },
  tokens: Uint32Array<ArrayBuffer>,
): Promise<ComparedWindow[]> {
  const loaded = {
    reference: uploadModel(device, models.reference),
    model: uploadModel(device, models.model),
  };
  return await Array.fromAsync(compareText(device, { ...loaded, tokens, shape }));
}

function sumOf(values: Float64Array): number {
  return values.reduce((sum, value) => sum + value, 0);
}

interface Expected {
  readonly windows: ComparedWindow[];
  /** Recursion depths of the text's tokens. */
  readonly referenceDepths: number[];
  readonly depths: number[];
}

/** What the reference computes for the same windows, one after the other. */
function expectedOf(models: { reference: Model; model: Model }, tokens: Uint32Array): Expected {
  const expected: Expected = { windows: [], referenceDepths: [], depths: [] };
  const { vocabSize } = models.reference.config;
  const selection = { kind: "threshold", threshold: 0 } as const;
  for (let start = 0; start < tokens.length - 1; start += shape.sequenceLength) {
    const end = Math.min(start + shape.sequenceLength, tokens.length - 1);
    const window = { ids: tokens.subarray(start, end), sequences: 1, selection };
    const targets = tokens.subarray(start + 1, end + 1);
    const p = forward(models.reference, window);
    const q = forward(models.model, window);
    const met = reference.divergence({ reference: p.logits, logits: q.logits }, { vocabSize });
    expected.windows.push({
      tokens: end - start,
      referenceLoss: sumOf(crossEntropy({ logits: p.logits, targets }, { vocabSize })),
      loss: sumOf(crossEntropy({ logits: q.logits, targets }, { vocabSize })),
      divergence: sumOf(met.divergences),
      agreements: sumOf(met.agreements),
    });
    expected.referenceDepths.push(...p.depths);
    expected.depths.push(...q.depths);
  }
  return expected;
}

function assertWindows(met: readonly ComparedWindow[], expected: readonly ComparedWindow[]): void {
  assertEquals(met.map(({ tokens }) => tokens), expected.map(({ tokens }) => tokens));
  assertEquals(met.map(({ agreements }) => agreements), expected.map(({ agreements }) => agreements));
  for (const name of ["referenceLoss", "loss", "divergence"] as const) {
    const [values, wanted] = [met, expected].map((windows) => windows.map((window) => window[name]));
    assertClose(values!, wanted!, { relative: 2e-4, label: name });
  }
}

const configs: Readonly<Record<string, ModelConfig>> = {
  "vanilla": tinyConfig(),
  "vanilla with a head of its own": tinyConfig({ tieWordEmbeddings: false }),
  "recursive": tinyRecursiveConfig(middleCycle),
  "expert choice": tinyRecursiveConfig(middleCycle, { router: tinyRouter({ alpha: 1 }) }),
  "token choice": tinyRecursiveConfig(middleCycle, { router: tinyTokenRouter() }),
};

for (const [name, config] of Object.entries(configs)) {
  gpuTest(`compareText gives the reference's losses, divergences and agreements: ${name}`, async (device) => {
    const model = roundedModel(config, { seed: 91 });
    const models = { reference: model, model: perturbed(model, { deviation: 0.05 }) };
    const tokens = textOf(config);
    const expected = expectedOf(models, tokens);
    assertEquals(expected.windows.map(({ tokens }) => tokens), LENGTHS);
    // The case is worth its name: predictions differ, and with a router the depths of some tokens too.
    assert(expected.windows.some(({ agreements, tokens }) => agreements < tokens));
    if (config.router) assertNotEquals(expected.depths, expected.referenceDepths);
    assertWindows(await compare(device, models, tokens), expected.windows);
  });

  gpuTest(`compareText finds no difference between a model and itself: ${name}`, async (device) => {
    const model = roundedModel(config, { seed: 91 });
    const tokens = textOf(config);
    const windows = await compare(device, { reference: model, model }, tokens);
    const evaluation = { model: uploadModel(device, model), tokens, routing: "causal", shape } as const;
    const evaluated = evaluationReport(await Array.fromAsync(evaluateText(device, evaluation)));
    const alike = evaluated.windows.map(({ tokens, loss }) => ({
      tokens,
      referenceLoss: loss,
      loss,
      divergence: 0,
      agreements: tokens,
    }));
    assertEquals(windows, alike);
    assertEquals(comparisonReport(windows).perplexity.mean, evaluated.perplexity);
  });
}

gpuTest("compareText compares models of unlike schemes", async (device) => {
  const models = {
    reference: roundedModel(configs["vanilla"]!, { seed: 91 }),
    model: roundedModel(configs["expert choice"]!, { seed: 92 }),
  };
  const tokens = textOf(models.model.config);
  assertWindows(await compare(device, models, tokens), expectedOf(models, tokens).windows);
});

gpuTest("compareText runs a text of two tokens", async (device) => {
  const model = roundedModel(configs["expert choice"]!, { seed: 96 });
  const models = { reference: model, model: perturbed(model, { deviation: 0.05 }) };
  const tokens = Uint32Array.of(3, 7);
  const windows = await compare(device, models, tokens);
  assertWindows(windows, expectedOf(models, tokens).windows);
  assertEquals(comparisonReport(windows).perplexityChangePercent.standardError, null);
});

/** A file's weights on the device as they are stored, and as numbers. */
async function load(
  device: GpuDevice,
  { config, file }: { config: ModelConfig; file: WeightFile },
): Promise<{ loaded: ComparedModel; numbers: Model }> {
  const planned = planWeights(device, { config, file, choice: "auto" });
  await fillWeights(device, planned, { file });
  const weights = new Map<string, Float64Array>();
  for (const [name, { shape }] of file.entries) {
    weights.set(name, Float64Array.from(await readWeight(file, { name, shape })));
  }
  return { loaded: { config, weights: planned.weights }, numbers: { config, weights } };
}

gpuTest("compareText tells what a model's blocks of four bits cost", async (device) => {
  const sizes = { hiddenSize: 32, intermediateSize: 64, headDim: 16, vocabSize: 45 };
  const config = tinyRecursiveConfig(middleCycle, { ...sizes, router: tinyRouter({ alpha: 1 }) });
  const plain = seededWeights(config, { seed: 98 });
  const packed = new Map(plain);
  for (const [name, weight] of plain) {
    if (!/proj|embed/.test(name)) continue;
    const bytes = encodeNumbers("q4_0", decodeNumbers("f32", weight.bytes));
    packed.set(name, { ...weight, format: "q4_0", bytes });
  }
  const whole = await load(device, { config, file: memoryWeightFile(plain) });
  const small = await load(device, { config, file: memoryWeightFile(packed) });
  assert(isPacked(small.loaded.weights.head) && !isPacked(whole.loaded.weights.head));
  const tokens = textOf(config);
  const models = { reference: whole.loaded, model: small.loaded };
  const windows = await Array.fromAsync(compareText(device, { ...models, tokens, shape }));
  assertWindows(windows, expectedOf({ reference: whole.numbers, model: small.numbers }, tokens).windows);
});

gpuTest("compareText frees its buffers, also when the caller has seen enough", async (device) => {
  const model = uploadModel(device, roundedModel(configs["expert choice"]!, { seed: 97 }));
  const comparison = { reference: model, model, tokens: textOf(model.config), shape };
  await Array.fromAsync(compareText(device, comparison));
  const { live } = device.memory;
  await Array.fromAsync(compareText(device, comparison));
  assertEquals(device.memory.live, live);
  for await (const { tokens } of compareText(device, comparison)) {
    assert(device.memory.live > live && tokens === 8);
    break;
  }
  assertEquals(device.memory.live, live);
});

gpuTest("compareText refuses a model of another vocabulary", async (device) => {
  const models = {
    reference: roundedModel(tinyConfig(), { seed: 91 }),
    model: roundedModel(tinyConfig({ vocabSize: 12 }), { seed: 91 }),
  };
  await assertRejects(
    () => compare(device, models, Uint32Array.of(1, 2)),
    ConfigError,
    "a vocabulary of 12 tokens to a reference with 11",
  );
});

gpuTest("compareText refuses weights that give no finite figures, and says whose", async (device) => {
  const good = roundedModel(tinyConfig({ tieWordEmbeddings: false }), { seed: 99 });
  function damaged(name: string, value: number): Model {
    const weights = new Map(good.weights).set(name, good.weights.get(name)!.with(0, value));
    return { ...good, weights };
  }
  const noNumber = damaged("model.norm.weight", NaN);
  // The logit of token 0, which is not wanted, is -Infinity: that leaves the losses finite.
  const noLogit = damaged("lm_head.weight", -Infinity);
  const cases = [
    [{ reference: noNumber, model: good }, "the reference's loss of a token is NaN"],
    [{ reference: good, model: noNumber }, "the model's loss of a token is NaN"],
    [{ reference: good, model: noLogit }, "the divergence of a token is NaN"],
  ] as const;
  for (const [models, message] of cases) {
    await assertRejects(() => compare(device, models, Uint32Array.of(1, 2)), CheckpointError, message);
  }
});
