/** The training loop: what it reports, saves, resumes and refuses. */
import { join } from "@std/path";
import { assertClose } from "../support/close.ts";
import { assertEquals, assertLess, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { readTensor } from "../../gpu/readback.ts";
import { writeTensor } from "../../gpu/tensor.ts";
import { readTrainingState } from "../../model/files/checkpoint.ts";
import { ConfigError, type ExpertChoiceConfig } from "../../model/config.ts";
import {
  evaluationSequences,
  type StepReport,
  train,
  TrainingError,
  type TrainOptions,
  type TrainReport,
} from "../../model/train.ts";
import { gpuTest } from "../support/device.ts";
import { sentences, tinyTraining } from "../support/tiny_training.ts";

const options = tinyTraining;
const { config, dataset } = options;

function folderTest(name: string, body: (device: GpuDevice, folder: string) => Promise<void>): void {
  gpuTest(name, async (device) => {
    const folder = await Deno.makeTempDir();
    try {
      await body(device, folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

function reportsOf(device: GpuDevice, options: TrainOptions): Promise<TrainReport[]> {
  return Array.fromAsync(train(device, options));
}

function stepsOf(reports: readonly TrainReport[]): StepReport[] {
  return reports.filter((report) => report.kind === "step");
}

function filesOf(folder: string, step: number): Uint8Array[] {
  return ["model.safetensors", `training/step-${step}.safetensors`, "config.json"]
    .map((name) => Deno.readFileSync(join(folder, name)));
}

function stopAfter(step: number): Pick<TrainOptions, "cadence"> {
  return { cadence: { ...options.cadence, stopAfter: step } };
}

folderTest("five steps and five resumed ones equal ten, bit for bit", async (device, parent) => {
  const [straight, resumed] = [join(parent, "straight"), join(parent, "resumed")];
  const whole = await reportsOf(device, { ...options, folder: straight });
  const first = await reportsOf(device, { ...options, ...stopAfter(5), folder: resumed });
  const second = await reportsOf(device, { ...options, folder: resumed, resume: true });
  assertEquals([...stepsOf(first), ...stepsOf(second)], stepsOf(whole));
  assertEquals([second[0]!.kind, second[0]!.step], ["started", 5]);
  assertEquals(filesOf(resumed, 10), filesOf(straight, 10));
  assertEquals((await readTrainingState(resumed)).flags, options.flags);

  const after = await reportsOf(device, { ...options, folder: resumed, resume: true });
  assertEquals(after.map(({ kind }) => kind), ["started"]);
});

folderTest(
  "recomputation may be switched when a run is resumed, and changes no bit",
  async (device, parent) => {
    const [kept, switched] = [join(parent, "kept"), join(parent, "switched")];
    const whole = await reportsOf(device, { ...options, ...stopAfter(6), folder: kept });
    const parts: TrainReport[] = [];
    for (const [last, recompute] of [[2, true], [4, false], [6, true]] as const) {
      const resume = last > 2;
      parts.push(
        ...await reportsOf(device, { ...options, ...stopAfter(last), recompute, resume, folder: switched }),
      );
    }
    const trained = (reports: readonly TrainReport[]): Partial<StepReport>[] =>
      stepsOf(reports).map(({ evaluation: _, ...rest }) => rest);
    assertEquals(trained(parts), trained(whole));
    assertEquals(filesOf(switched, 6), filesOf(kept, 6));
  },
);

const inF16 = { ...options, settings: { ...options.settings, activationDtype: "f16" } } as const;

folderTest(
  "activations in f16 round what is learned, and resume in the same bits",
  async (device, parent) => {
    const folders = ["f32", "straight", "resumed"].map((name) => join(parent, name));
    const [f32, straight, resumed] = folders as [string, string, string];
    const kept = stepsOf(await reportsOf(device, { ...options, ...stopAfter(4), folder: f32 }));
    const whole = stepsOf(await reportsOf(device, { ...inF16, ...stopAfter(4), folder: straight }));
    await reportsOf(device, { ...inF16, ...stopAfter(2), folder: resumed });
    await reportsOf(device, { ...inF16, ...stopAfter(4), folder: resumed, resume: true });
    assertEquals(filesOf(resumed, 4), filesOf(straight, 4));
    assertNotEquals(filesOf(straight, 4), filesOf(f32, 4));
    assertEquals(whole[0]!.losses, kept[0]!.losses);
    const last = [whole, kept].map((steps) => [steps.at(-1)!.losses.total]);
    assertClose(last[0]!, last[1]!, { relative: 0.01, label: "last loss" });
  },
);

folderTest("a number beyond f16 stops training unsaved, where f32 goes on", async (device, parent) => {
  const run = async (changes: typeof options, folder: string): Promise<StepReport[]> => {
    const steps: StepReport[] = [];
    for await (const report of train(device, { ...changes, ...stopAfter(1), folder })) {
      if (report.kind === "step") steps.push(report);
      if (report.kind !== "started") continue;
      const weight = report.weights.layers[0]!.down;
      const values = await readTensor(device, weight) as Float32Array<ArrayBuffer>;
      writeTensor(device, weight, values.map((value) => value * 1e9));
    }
    return steps;
  };
  const [step] = await run(options, join(parent, "f32"));
  assertEquals(Number.isFinite(step!.gradNorm), true);
  const folder = join(parent, "f16");
  const error = await assertRejects(() => run(inF16, folder), TrainingError, "Training stopped at step 1: ");
  for (
    const part of [
      `loss ${step!.losses.total}, gradient norm NaN, wanted finite numbers; nothing was saved; `,
      "lower --learning-rate, or start without --activations f16, which holds numbers up to 65504 alone",
    ]
  ) {
    assertStringIncludes(error.message, part);
  }
  assertEquals([...Deno.readDirSync(join(folder, "training"))], []);
});

folderTest("the same seed gives the same run, another seed another", async (device, parent) => {
  const run = async (seed: number, name: string): Promise<StepReport[]> => {
    const settings = { ...options.settings, seed };
    return stepsOf(
      await reportsOf(device, { ...options, ...stopAfter(4), settings, folder: join(parent, name) }),
    );
  };
  const first = await run(4, "a");
  assertEquals(await run(4, "b"), first);
  assertNotEquals((await run(5, "c")).map(({ losses }) => losses), first.map(({ losses }) => losses));
  assertEquals(filesOf(join(parent, "a"), 4), filesOf(join(parent, "b"), 4));
});

folderTest("train reports steps, tokens, rates, evaluations and checkpoints", async (device, folder) => {
  const cadence = { evaluateEvery: 4, evaluationBatches: 2, saveEvery: 6, stopAfter: Infinity };
  const reports = await reportsOf(device, { ...options, cadence, folder });
  const kinds = reports.map((report) => report.kind === "saved" ? `saved ${report.step}` : report.kind);
  assertEquals(kinds, [
    "started",
    ...Array<string>(6).fill("step"),
    "saved 6",
    ...Array<string>(4).fill("step"),
    "saved 10",
  ]);
  const steps = stepsOf(reports);
  assertEquals(steps.map(({ step }) => step), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assertEquals(steps.map(({ tokens }) => tokens), steps.map(({ step }) => step * 96));
  const rates = [0.5, 1, 1, 1, 1, 1, 1, 1, 2 / 3, 1 / 3].map((part) => 3e-3 * part);
  assertClose(steps.map(({ learningRate }) => learningRate), rates, { relative: 1e-12, label: "rates" });
  assertEquals(steps.filter(({ evaluation }) => evaluation).map(({ step }) => step), [4, 8, 10]);
  const { loss, tokens, depthFractions } = steps.at(-1)!.evaluation!;
  assertEquals(tokens, 2 * 2 * 24);
  assertLess(loss, Math.log(257));
  assertClose([depthFractions!.reduce((sum, part) => sum + part, 0)], [1], {
    relative: 1e-12,
    label: "fractions",
  });
  const { auxiliaryCoefficient } = config.router as ExpertChoiceConfig;
  for (const { losses: { ce, auxiliary, total }, gradNorm } of steps) {
    assertClose([total], [ce + auxiliaryCoefficient * auxiliary!], { relative: 1e-12, label: "total" });
    assertEquals(gradNorm > 0, true);
  }
  assertLess(steps.at(-1)!.losses.ce, steps[0]!.losses.ce);
});

for (const saved of [0, 2]) {
  folderTest(
    `a weight that is not a number stops training, ${saved} steps saved before`,
    async (device, folder) => {
      const cadence = { ...options.cadence, saveEvery: 2 };
      const before: Uint8Array[] = [];
      const run = async (): Promise<void> => {
        let weights;
        for await (const report of train(device, { ...options, cadence, folder })) {
          if (report.kind === "started") weights = report.weights.norm;
          if (report.kind !== (saved === 0 ? "started" : "saved")) continue;
          if (saved > 0) before.push(...filesOf(folder, saved));
          writeTensor(device, weights!, Float32Array.of(NaN));
        }
      };
      const error = await assertRejects(
        run,
        TrainingError,
        `Training stopped at step ${saved + 1}: loss NaN`,
      );
      if (saved === 0) {
        assertStringIncludes(error.message, "nothing was saved");
        assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), [
          "config.json",
          "training",
        ]);
        return;
      }
      assertStringIncludes(error.message, `the checkpoint of step 2 in ${folder} is intact`);
      assertEquals(filesOf(folder, 2), before);
    },
  );
}

folderTest("an update that ruins the weights is not saved", async (device, folder) => {
  const schedule = { ...options.settings.schedule, learningRate: 1e30, warmupSteps: 0 };
  const settings = { ...options.settings, schedule };
  const cadence = { ...options.cadence, saveEvery: 1 };
  const run = reportsOf(device, { ...options, settings, cadence, folder });
  await assertRejects(() => run, TrainingError, "Training stopped at step 1: loss NaN");
  assertEquals([...Deno.readDirSync(join(folder, "training"))], []);
});

folderTest("a signal ends a run after its step, saved", async (device, folder) => {
  const controller = new AbortController();
  const reports: TrainReport[] = [];
  for await (const report of train(device, { ...options, signal: controller.signal, folder })) {
    reports.push(report);
    if (report.kind === "step" && report.step === 3) controller.abort();
  }
  assertEquals(reports.slice(-2), [{ kind: "saved", step: 3 }, { kind: "interrupted", step: 3 }]);
  assertEquals((await readTrainingState(folder)).step, 3);
});

folderTest("a resumed run must be the run that was started", async (device, folder) => {
  await reportsOf(device, { ...options, ...stopAfter(1), folder });
  const { settings } = options;
  const { shape, schedule } = settings;
  const other: Record<string, Partial<TrainOptions>> = {
    "schedule.learningRate is 0.001, the run was started with 0.003": {
      settings: { ...settings, schedule: { ...schedule, learningRate: 1e-3 } },
    },
    "shape.batchSize is 4": { settings: { ...settings, shape: { ...shape, batchSize: 4 } } },
    'activationDtype is "f16", the run was started with "f32"': { settings: inF16.settings },
    "seed is 9": { settings: { ...settings, seed: 9 } },
    "model.router.alpha is 0.2": {
      config: { ...config, router: { ...config.router as ExpertChoiceConfig, alpha: 0.2 } },
    },
    "the text is not the one": { dataset: await sentences(13) },
  };
  for (const [message, changes] of Object.entries(other)) {
    const run = reportsOf(device, { ...options, ...changes, folder, resume: true });
    const error = await assertRejects(() => run, ConfigError, message);
    assertStringIncludes(error.message, `Cannot resume ${folder}: `);
  }
  const stored = join(folder, "f16");
  await reportsOf(device, { ...inF16, ...stopAfter(1), folder: stored });
  const switched = { ...inF16, recompute: true, folder: stored, resume: true };
  const message = "recompute is true, the run was started with false";
  await assertRejects(() => reportsOf(device, switched), ConfigError, message);
  // What changes no weight may change.
  const cadence = { evaluateEvery: 0, evaluationBatches: 1, saveEvery: 1, stopAfter: 2 };
  const steps = stepsOf(await reportsOf(device, { ...options, cadence, flags: "{}", folder, resume: true }));
  assertEquals(steps.map(({ step, evaluation }) => [step, evaluation]), [[2, null]]);
});

folderTest("a run from before activations had a format goes on in f32 alone", async (device, folder) => {
  await reportsOf(device, { ...options, ...stopAfter(1), folder });
  const path = join(folder, "training", "step-1.safetensors");
  // The header tells the run as JSON in a string of JSON; blanks leave its length as it is.
  const text = new TextDecoder("latin1").decode(await Deno.readFile(path));
  const setting = String.raw`\"activationDtype\":\"f32\",`;
  const at = text.indexOf(setting);
  assertEquals(at > 0, true);
  using file = await Deno.open(path, { write: true });
  await file.seek(at, Deno.SeekMode.Start);
  await file.write(new TextEncoder().encode(" ".repeat(setting.length)));

  const started = 'activationDtype is "f16", the run was started with "f32"';
  const run = reportsOf(device, { ...inF16, folder, resume: true });
  await assertRejects(() => run, ConfigError, started);
  const steps = stepsOf(await reportsOf(device, { ...options, ...stopAfter(2), folder, resume: true }));
  assertEquals(steps.map(({ step }) => step), [2]);
});

Deno.test("an evaluation batch is no larger than the held-out text", () => {
  const { settings } = options;
  assertEquals(evaluationSequences(dataset, settings), 2);
  const wide = { shape: { ...settings.shape, batchSize: 99 } };
  assertEquals(evaluationSequences(dataset, wide), Math.floor((dataset.validation.length - 1) / 24));
  const nothing = { ...dataset, validation: dataset.validation.subarray(0, 0) };
  assertEquals(evaluationSequences(nothing, settings), 0);
});
