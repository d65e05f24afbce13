import { join } from "@std/path";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { readTensors } from "../../../gpu/readback.ts";
import { writeTensor } from "../../../gpu/tensor.ts";
import type { GpuDevice } from "../../../gpu/device.ts";
import {
  createCheckpointFolder,
  hasWeights,
  loadTraining,
  loadWeights,
  readConfig,
  readTrainingState,
  saveTraining,
  type TrainingState,
} from "../../../model/files/checkpoint.ts";
import { ConfigError } from "../../../model/config.ts";
import { allocateOptimizer, type OptimizerState } from "../../../model/optimizer.ts";
import { ParameterLayout, type ParameterViews } from "../../../model/parameter_layout.ts";
import { presetConfig } from "../../../model/presets.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import { parameterTensor } from "../../../model/weights.ts";
import { gpuTest } from "../../support/device.ts";
import { readTensors as readIndependently } from "../../support/golden.ts";
import { createRandom } from "../../support/random.ts";

const config = presetConfig("tiny");
const layout = new ParameterLayout(config);

/** What a run keeps. */
interface Run {
  readonly weights: ParameterViews;
  readonly optimizer: OptimizerState;
}

function allocateRun(device: GpuDevice): Run {
  return { weights: layout.allocate(device, "weights"), optimizer: allocateOptimizer(device, layout) };
}

function flats({ weights, optimizer: { firstMoments, secondMoments } }: Run): ParameterViews["flat"][] {
  return [weights.flat, firstMoments.flat, secondMoments.flat];
}

/** A run whose every number is random; padding rows stay zero. */
function randomRun(device: GpuDevice, seed: number): Run {
  const run = allocateRun(device);
  const random = createRandom(seed);
  for (const views of [run.weights, run.optimizer.firstMoments, run.optimizer.secondMoments]) {
    for (const { spec } of layout.places.values()) {
      const tensor = parameterTensor(layout, views, spec.name);
      const size = spec.shape.reduce((product, n) => product * n, 1);
      writeTensor(device, tensor, Float32Array.from(random.normals(size)));
    }
  }
  return run;
}

/** The same views, whose tensor cannot be read: as if the machine stopped there. */
function unreadable(views: ParameterViews): ParameterViews {
  return Object.defineProperty({ ...views }, "flat", {
    get: () => {
      throw new RangeError("the power is cut");
    },
  });
}

async function numbers(device: GpuDevice, run: Run): Promise<Float32Array[]> {
  return await readTensors(device, flats(run)) as Float32Array[];
}

function checkpointTest(name: string, body: (device: GpuDevice, folder: string) => Promise<void>): void {
  gpuTest(name, async (device) => {
    const folder = await Deno.makeTempDir();
    try {
      await body(device, folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

function stateOf(step: number): TrainingState {
  return { step, run: `settings of ${step}`, flags: `flags of ${step}` };
}

async function save(
  device: GpuDevice,
  { folder, run, step }: { folder: string; run: Run; step: number },
): Promise<void> {
  await saveTraining(device, { folder, layout, ...run, state: stateOf(step) });
}

/** Loads what the folder holds and checks that it is the given run at the given step. */
async function assertHolds(
  device: GpuDevice,
  { folder, run, step }: { folder: string; run: Run; step: number },
): Promise<void> {
  assertEquals(await readTrainingState(folder), stateOf(step));
  const loaded = allocateRun(device);
  await loadTraining(device, { folder, layout, ...loaded, step });
  assertEquals(await numbers(device, loaded), await numbers(device, run));
}

function states(folder: string): string[] {
  return [...Deno.readDirSync(join(folder, "training"))].map(({ name }) => name).sort();
}

checkpointTest(
  "a saved run loads bit for bit, and an independent reader sees its weights",
  async (device, folder) => {
    const run = randomRun(device, 1);
    await createCheckpointFolder(folder, { config, tokenizer: "byte" });
    assertEquals(await hasWeights(folder), false);
    await save(device, { folder, run, step: 7 });
    assertEquals(await hasWeights(folder), true);
    assertEquals(await readConfig(folder), config);
    assertEquals(states(folder), ["step-7.safetensors"]);
    await assertHolds(device, { folder, run, step: 7 });

    const tensors = readIndependently(new URL(`file://${join(folder, "model.safetensors")}`));
    assertEquals([...tensors.keys()], [...layout.places.keys()]);
    for (const { spec } of layout.places.values()) {
      const [data] = await readTensors(device, [parameterTensor(layout, run.weights, spec.name)]);
      assertEquals(tensors.get(spec.name), { shape: spec.shape, data: data as Float32Array });
    }
  },
);

checkpointTest(
  "wherever saving is cut short, weights and their training state load",
  async (device, folder) => {
    const [old, next] = [randomRun(device, 1), randomRun(device, 2)];
    await createCheckpointFolder(folder, { config, tokenizer: "byte" });
    await save(device, { folder, run: old, step: 5 });

    const { optimizer } = next;
    const whileState = {
      ...next,
      optimizer: { ...optimizer, secondMoments: unreadable(optimizer.secondMoments) },
    };
    await assertRejects(
      () => save(device, { folder, run: whileState, step: 10 }),
      RangeError,
      "the power is cut",
    );
    assertEquals(states(folder), ["step-5.safetensors"]);
    await assertHolds(device, { folder, run: old, step: 5 });

    const whileWeights = { ...next, weights: unreadable(next.weights) };
    await assertRejects(
      () => save(device, { folder, run: whileWeights, step: 10 }),
      RangeError,
      "the power is cut",
    );
    assertEquals(states(folder), ["step-10.safetensors", "step-5.safetensors"]);
    await assertHolds(device, { folder, run: old, step: 5 });

    // The old state still there, beside what a killed run leaves in the making.
    const oldState = join(folder, "training", "step-5.safetensors");
    const bytes = await Deno.readFile(oldState);
    await save(device, { folder, run: next, step: 10 });
    await Deno.writeFile(oldState, bytes);
    await Deno.writeFile(join(folder, "training", ".step-15.safetensors.unfinished"), bytes.subarray(0, 100));
    await Deno.mkdir(join(folder, "training", "the user's own"));
    await assertHolds(device, { folder, run: next, step: 10 });

    await save(device, { folder, run: old, step: 15 });
    assertEquals(states(folder), ["step-15.safetensors", "the user's own"]);
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), [
      "config.json",
      "model.safetensors",
      "training",
    ]);
    await assertHolds(device, { folder, run: old, step: 15 });
  },
);

checkpointTest("readTrainingState refuses weights without a training state", async (device, folder) => {
  await createCheckpointFolder(folder, { config, tokenizer: "byte" });
  const weights = join(folder, "model.safetensors");
  await assertRejects(
    () => readTrainingState(folder),
    CheckpointError,
    `Cannot load ${weights}: no such file`,
  );
  await save(device, { folder, run: randomRun(device, 1), step: 5 });
  await Deno.remove(join(folder, "training", "step-5.safetensors"));
  await assertRejects(() => readTrainingState(folder), CheckpointError, "step-5.safetensors: no such file");
  await Deno.copyFile(
    new URL("../../../fixtures/golden/vanilla/model.safetensors", import.meta.url),
    weights,
  );
  await assertRejects(() => readTrainingState(folder), CheckpointError, "not saved by a training run");
});

checkpointTest(
  "loadWeights names file, tensor and both shapes when the model is another",
  async (device, folder) => {
    await createCheckpointFolder(folder, { config, tokenizer: "byte" });
    await save(device, { folder, run: randomRun(device, 1), step: 1 });
    async function refusal(other: ParameterLayout): Promise<string> {
      const weights = other.allocate(device, "weights");
      const load = loadWeights(device, { folder, layout: other, weights });
      return (await assertRejects(() => load, CheckpointError)).message;
    }
    const wider = await refusal(new ParameterLayout({ ...config, vocabSize: 300 }));
    assertStringIncludes(wider, `Cannot load ${join(folder, "model.safetensors")}: `);
    assertStringIncludes(wider, 'tensor "model.embed_tokens.weight" has shape (257, 64), expected (300, 64)');
    const untied = await refusal(new ParameterLayout({ ...config, tieWordEmbeddings: false }));
    assertStringIncludes(untied, 'tensor "lm_head.weight" is missing');
  },
);

checkpointTest(
  "readConfig names the file that is missing, no JSON or no configuration",
  async (_, folder) => {
    const path = join(folder, "config.json");
    await assertRejects(() => readConfig(folder), CheckpointError, `Cannot load ${path}: no such file`);
    await Deno.writeTextFile(path, '{"vocab_size": 257,');
    await assertRejects(() => readConfig(folder), ConfigError, `Cannot use config ${path}: it is not JSON`);
    await Deno.writeTextFile(path, "{}");
    await assertRejects(
      () => readConfig(folder),
      ConfigError,
      `Cannot use config ${path}: field "vocab_size"`,
    );
    await assertRejects(() => readConfig(path), CheckpointError, "no such file");
  },
);
