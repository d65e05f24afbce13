/** The head in chunks of the rows: the losses, bit for bit, and the gradients that it has when it runs whole. */
import { assert, assertEquals, assertLess, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { MemoryError } from "../../gpu/errors.ts";
import { rowWindows } from "../../gpu/packed_matrix.ts";
import { readTensor } from "../../gpu/readback.ts";
import type { ModelConfig } from "../../model/config.ts";
import { compareText } from "../../model/compare_text.ts";
import { evaluateText } from "../../model/evaluate_text.ts";
import { headLogits } from "../../model/head.ts";
import type { Batch } from "../../model/text/dataset.ts";
import type { LossTerms, StepShape } from "../../model/training.ts";
import { parameterTensor } from "../../model/weights.ts";
import {
  randomIds,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { asHardware } from "../support/hardware.ts";
import { asNarrow } from "../support/narrow_device.ts";
import { createRandom } from "../support/random.ts";
import { startTraining } from "../support/training_case.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;

function batchOf(config: ModelConfig, { batchSize, sequenceLength }: StepShape): Batch {
  const random = createRandom(112);
  const draw = (): Uint32Array<ArrayBuffer> =>
    Uint32Array.from(randomIds(config, { random, count: batchSize * sequenceLength }));
  return { ids: draw(), targets: draw() };
}

interface Trained {
  readonly losses: LossTerms;
  readonly tokenLosses: number[];
  readonly gradients: ReadonlyMap<string, number[]>;
  /** Rows of each chunk. */
  readonly chunks: number[];
}

/** What one step computes with logits of at most some rows at a time. */
async function trainOnce(
  device: GpuDevice,
  { config, shape, batches, logitRows }: {
    config: ModelConfig;
    shape: StepShape;
    batches: readonly Batch[];
    logitRows?: number;
  },
): Promise<Trained> {
  const { buffers, programs } = startTraining(device, { config, shape, ...(logitRows && { logitRows }) });
  const { layout, gradients, workspace } = buffers;
  const { losses } = await programs.step(batches, { learningRate: 0, step: 0, seed: 3 });
  const found = new Map<string, number[]>();
  for (const name of layout.places.keys()) {
    found.set(name, Array.from(await readTensor(device, parameterTensor(layout, gradients, name))));
  }
  return {
    losses,
    tokenLosses: Array.from(await readTensor(device, workspace.tokenLosses)),
    gradients: found,
    chunks: workspace.headChunks.map(({ rows }) => rows.maximum),
  };
}

/** The head's weight sums over its rows in another order; everything else is computed as before. */
function assertAlike(met: Trained, { wanted, config }: { wanted: Trained; config: ModelConfig }): void {
  assertEquals(met.tokenLosses, wanted.tokenLosses);
  assertEquals(met.losses, wanted.losses);
  const head = config.tieWordEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  for (const [name, gradient] of wanted.gradients) {
    const found = met.gradients.get(name);
    if (name === head) assertClose(found!, gradient, { relative: 1e-6, measure: "norm", label: name });
    else assertEquals(found, gradient, name);
  }
}

const configs: Readonly<Record<string, ModelConfig>> = {
  "vanilla": tinyConfig(),
  "vanilla with a head of its own": tinyConfig({ tieWordEmbeddings: false }),
  "expert choice": tinyRecursiveConfig(middleCycle, {
    router: tinyRouter({ auxiliaryCoefficient: 0.1, zCoefficient: 0.01 }),
  }),
  "token choice": tinyRecursiveConfig(middleCycle, { router: tinyTokenRouter() }),
};

/** Sequences and their tokens, and the chunks that come of at most 16 rows of logits. */
const shapes = [
  { batchSize: 2, sequenceLength: 24, chunks: [16, 16, 16] },
  { batchSize: 3, sequenceLength: 11, chunks: [16, 16, 1] },
  { batchSize: 1, sequenceLength: 17, chunks: [16, 1] },
  { batchSize: 1, sequenceLength: 16, chunks: [16] },
  { batchSize: 1, sequenceLength: 1, chunks: [1] },
];

for (const [name, config] of Object.entries(configs)) {
  for (const { chunks, ...sizes } of shapes) {
    const rows = `${sizes.batchSize} x ${sizes.sequenceLength} rows`;
    for (const variant of ["software", "hardware"] as const) {
      gpuTest(
        `the head in chunks gives what it gives whole: ${name}, ${rows}, ${variant}`,
        async (opened) => {
          const device = variant === "hardware" ? asHardware(opened) : opened;
          const shape = { ...sizes, gradientAccumulation: 1 };
          const options = { config, shape, batches: [batchOf(config, shape)] };
          const wanted = await trainOnce(device, options);
          assertEquals(wanted.chunks, [sizes.batchSize * sizes.sequenceLength]);
          const met = await trainOnce(device, { ...options, logitRows: 16 });
          assertEquals(met.chunks, chunks);
          assertAlike(met, { wanted, config });
        },
      );
    }
  }
}

gpuTest(
  "chunks of the head multiply as often as they must, in the parts of the program that they belong to",
  (device) => {
    const shape = { batchSize: 3, sequenceLength: 11, gradientAccumulation: 1 };
    const { programs } = startTraining(device, { config: configs["vanilla"]!, shape, logitRows: 16 });
    const parts: Record<string, string[]> = {};
    for (const step of programs.batch.steps) {
      if (step.kind !== "dispatch") continue;
      const kernel = step.label.replace(/^matmul_.*/, "product");
      (parts[step.part] ??= []).push(kernel);
    }
    assertEquals(parts["head"], ["rms_norm forward", "product", "product", "product"]);
    assertEquals(parts["losses"], [...Array(3).fill("cross_entropy forward_backward"), "sum forward"]);
    const norm = ["rms_norm backward_input", "rms_norm backward_weight"];
    assertEquals(parts["head, backward"], [...Array(6).fill("product"), ...norm]);
    return Promise.resolve();
  },
);

const wide = tinyConfig({
  vocabSize: 70_000,
  hiddenSize: 16,
  headDim: 8,
  numHiddenLayers: 1,
  maxPositionEmbeddings: 100,
});

gpuTest("a step trains whose logits the adapter could not bind, and learns", async (device) => {
  // Attention takes keys from the start of a block of 32 rows on: a sequence has its own bits if it starts there.
  const shape = { batchSize: 7, sequenceLength: 96, gradientAccumulation: 1 };
  assert(672 * 70_000 * 4 > Math.min(device.bindingLimit, 2 ** 27));
  const batch = batchOf(wide, shape);
  const met = await trainOnce(device, { config: wide, shape, batches: [batch] });
  assertEquals(met.chunks, [64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 32]);
  // Weights start small, so that all tokens are about as likely.
  assertClose([met.losses.ce], [Math.log(70_000)], { relative: 0.05, label: "first loss" });

  // Sequence by sequence the logits are few enough to be there whole.
  const one = { batchSize: 1, sequenceLength: 96, gradientAccumulation: 7 };
  const batches = Array.from({ length: 7 }, (_, i) => {
    const [start, end] = [i * 96, (i + 1) * 96];
    return { ids: batch.ids.slice(start, end), targets: batch.targets.slice(start, end) };
  });
  const wanted = await trainOnce(device, { config: wide, shape: one, batches });
  assertEquals(wanted.chunks, [96]);
  assertEquals(met.tokenLosses.slice(6 * 96), wanted.tokenLosses);
  assertClose([met.losses.ce], [wanted.losses.ce], { relative: 1e-6, label: "loss" });
  for (const [name, gradient] of wanted.gradients) {
    assertClose(met.gradients.get(name)!, gradient, { relative: 1e-5, measure: "norm", label: name });
  }

  const { programs } = startTraining(device, { config: wide, shape });
  const { losses: { ce } } = await programs.step([batch], { learningRate: 1e-2, step: 0, seed: 3 });
  assertLess((await programs.losses([batch], { step: 1, seed: 3 })).ce, ce);
});

for (const tieWordEmbeddings of [true, false]) {
  const name = tieWordEmbeddings ? "tied" : "of its own";
  gpuTest(`chunks of few rows go with windows of a head's weight, ${name}`, async (device) => {
    const config = tinyConfig({ vocabSize: 70_000, hiddenSize: 32, headDim: 16, tieWordEmbeddings });
    const shape = { batchSize: 2, sequenceLength: 21, gradientAccumulation: 1 };
    const options = { config, shape, batches: [batchOf(config, shape)] };
    const wanted = await trainOnce(device, options);
    // Binds 29 rows of logits, or 65,536 rows of the weight.
    const narrow = asNarrow(device);
    const { buffers } = startTraining(narrow, { config, shape });
    assertEquals(rowWindows(narrow, buffers.weights.head).map(({ count }) => count), [65_536, 4464]);
    const met = await trainOnce(narrow, options);
    assertEquals(met.chunks, [16, 16, 10]);
    assertEquals(met.tokenLosses, wanted.tokenLosses);
    for (const [parameter, gradient] of wanted.gradients) {
      assertClose(met.gradients.get(parameter)!, gradient, {
        relative: 1e-5,
        measure: "norm",
        label: parameter,
      });
    }
  });
}

gpuTest(
  "a vocabulary of which 16 rows are too many to bind is refused before anything is recorded",
  (device) => {
    const config = tinyConfig({ vocabSize: 20_000 });
    const shape = { batchSize: 1, sequenceLength: 24, gradientAccumulation: 1 };
    const narrow = asNarrow(device, 2 ** 20);
    assertThrows(
      () => startTraining(narrow, { config, shape }),
      MemoryError,
      "Cannot run the head on 16 rows",
    );
    return Promise.resolve();
  },
);

gpuTest("headLogits refuses a workspace that has no room for all logits", (device) => {
  const shape = { batchSize: 1, sequenceLength: 24, gradientAccumulation: 1 };
  const config = tinyConfig();
  const { buffers: { weights, workspace } } = startTraining(device, { config, shape, logitRows: 16 });
  const pass = { config, weights, workspace };
  const state = workspace.embedded;
  assertThrows(
    () => headLogits(new Commands(device, "test"), pass, { state }),
    TypeError,
    "out has shape (16,16), expected (24,16)",
  );
  return Promise.resolve();
});

/** Windows of 64 tokens, each from the start of a block of 32 rows on: four of them have too many logits for one chunk of a vocabulary of 70,000, one has not. */
const windowShapes = [{ batchSize: 4, sequenceLength: 64 }, { batchSize: 1, sequenceLength: 64 }] as const;
const text = Uint32Array.from(randomIds(wide, { random: createRandom(113), count: 5 * 64 + 1 }));

gpuTest("evaluateText gives windows the losses that each has alone", async (device) => {
  const model = uploadModel(device, roundedModel(wide, { seed: 114 }));
  const [together, alone] = await Promise.all(windowShapes.map(async (shape) => {
    const batches = evaluateText(device, { model, tokens: text, routing: "causal", shape });
    return (await Array.fromAsync(batches)).flatMap(({ windows }) => windows);
  }));
  assertEquals(together!.length, 5);
  assertEquals(together, alone);
});

gpuTest("compareText gives windows what each has alone", async (device) => {
  const [reference, model] = [114, 115].map((seed) => uploadModel(device, roundedModel(wide, { seed })));
  const [together, alone] = await Promise.all(
    windowShapes.map((shape) =>
      Array.fromAsync(compareText(device, { reference: reference!, model: model!, tokens: text, shape }))
    ),
  );
  assertEquals(together!.length, 5);
  assertEquals(together, alone);
  assert(together!.every(({ divergence }) => divergence > 0));
});
