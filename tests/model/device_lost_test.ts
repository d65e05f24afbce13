/** A device that is lost in the middle of a run: a typed error, nothing hangs, and the run goes on as if nothing was. */
import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { type GpuDevice, openDevice } from "../../gpu/device.ts";
import { GpuError } from "../../gpu/errors.ts";
import { generateTexts } from "../../model/batching/batch_texts.ts";
import type { ModelConfig } from "../../model/config.ts";
import { hasWeights } from "../../model/files/checkpoint.ts";
import { generate } from "../../model/generate.ts";
import { presetConfig } from "../../model/presets.ts";
import { GREEDY } from "../../model/sampling.ts";
import { byteTokenizer } from "../../model/text/tokenizer.ts";
import { train, type TrainOptions } from "../../model/train.ts";
import { initializeWeights } from "../../model/weights.ts";
import { ParameterLayout, type ParameterViews } from "../../model/parameter_layout.ts";
import { tinyTokenRouter } from "../reference/tiny_model.ts";
import { deviceLostAfter } from "../support/lost_device.ts";
import { folderTest } from "../support/program.ts";
import { assertSameCheckpoints } from "../support/small_run.ts";
import { tinyTraining } from "../support/tiny_training.ts";

const config = presetConfig("tiny");
const options: Omit<TrainOptions, "folder"> = {
  ...tinyTraining,
  settings: {
    ...tinyTraining.settings,
    shape: { batchSize: 2, sequenceLength: 24, gradientAccumulation: 1 },
    schedule: { learningRate: 3e-3, steps: 5, warmupSteps: 1, decaySteps: 1 },
  },
  cadence: { evaluateEvery: 2, evaluationBatches: 1, saveEvery: 2, stopAfter: Infinity },
};

/** Numbers of submits until `work` is done. */
async function submitsOf(work: (device: GpuDevice) => Promise<unknown>): Promise<number> {
  using device = await openDevice();
  const { queue } = device.handle;
  const submit = queue.submit.bind(queue);
  let count = 0;
  queue.submit = (commands): undefined => {
    count++;
    submit(commands);
  };
  await work(device);
  return count;
}

/** Loses the device at several moments of `work`, which has to end with the error for that each time. */
async function loseDuring(
  work: (device: GpuDevice) => Promise<unknown>,
  { times, then = () => Promise.resolve() }: { times: number; then?: () => Promise<void> },
): Promise<void> {
  const submits = await submitsOf(work);
  assertGreater(submits, times);
  for (let i = 0; i < times; i++) {
    using device = await deviceLostAfter(1 + Math.floor((i * (submits - 1)) / (times - 1)));
    const error = await assertRejects(() => work(device), GpuError, "The GPU device was lost", `loss ${i}`);
    assertEquals(error.kind, "lost");
    await then();
  }
}

folderTest(
  "a run whose device is lost at any moment goes on from its checkpoint, bit for bit",
  async (parent) => {
    const straight = join(parent, "straight");
    using device = await openDevice();
    await Array.fromAsync(train(device, { ...options, folder: straight }));
    let runs = 0;
    let resumed = 0;
    const folderOf = (run: number): string => join(parent, String(run));
    await loseDuring(
      (lost) => Array.fromAsync(train(lost, { ...options, folder: folderOf(runs) })),
      {
        times: 6,
        then: async () => {
          const folder = folderOf(runs++);
          const resume = await hasWeights(folder);
          if (resume) resumed++;
          await Array.fromAsync(train(device, { ...options, folder, resume }));
          await assertSameCheckpoints(folder, straight);
        },
      },
    );
    assert(resumed > 0 && resumed < runs, `${resumed} of ${runs} resumed`);
  },
);

function weightsOn(device: GpuDevice, config: ModelConfig): ParameterViews {
  const layout = new ParameterLayout(config);
  const weights = layout.allocate(device, "weights");
  initializeWeights(device, { layout, weights, seed: 3 });
  return weights;
}

Deno.test("a text that loses its device ends with that error", async () => {
  await loseDuring(async (device) => {
    const weights = weightsOn(device, config);
    await Array.fromAsync(generate(device, { config, weights }, {
      prompt: byteTokenizer.encode("The quick"),
      count: 12,
      sampling: GREEDY,
      seed: 1,
      logProbabilities: 0,
      endTokens: [],
    }));
  }, { times: 4 });
});

Deno.test("a batch of texts that loses its device ends with that error", async () => {
  const routed = { ...config, router: tinyTokenRouter() };
  await loseDuring(async (device) => {
    const weights = weightsOn(device, routed);
    const shape = {
      config: routed,
      weights,
      rows: 4,
      slots: 4,
      capacity: 64,
      kvDtype: "f32" as const,
      kvBytes: 2 ** 22,
      endTokens: [],
      ticks: 4,
    };
    const requests = ["The", "quick", "brown fox", "jumps", "over", "the lazy"].map((prompt, seed) => ({
      prompt: byteTokenizer.encode(prompt),
      count: 9,
      sampling: { ...GREEDY, seed },
      stop: [],
    }));
    await Array.fromAsync(
      generateTexts(device, shape, { requests, tokenizer: byteTokenizer, isContinuation: true }),
    );
  }, { times: 4 });
});
