/** A run's checkpoints without the training: weights and moments of a step are numbers that only that step has. */
import { assert, assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { readTensors } from "../../gpu/readback.ts";
import { writeTensor } from "../../gpu/tensor.ts";
import {
  createCheckpointFolder,
  hasWeights,
  loadTraining,
  readConfig,
  readTrainingState,
  saveTraining,
} from "../../model/files/checkpoint.ts";
import { allocateOptimizer, type OptimizerState } from "../../model/optimizer.ts";
import { ParameterLayout, type ParameterViews } from "../../model/parameter_layout.ts";
import { parameterTensor } from "../../model/weights.ts";
import { tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import { createRandom } from "./random.ts";

const config = tinyRecursiveConfig({ sharing: "cycle", numRecursions: 2, blockLayers: 1 }, {
  router: tinyRouter(),
});

/** What a run has on the device. */
interface RunBuffers {
  readonly layout: ParameterLayout;
  readonly weights: ParameterViews;
  readonly optimizer: OptimizerState;
}

/** Saves and checks the checkpoints of a run that there is none of. */
export class SavedSteps {
  readonly #device: GpuDevice;
  readonly #saved: RunBuffers;
  readonly #loaded: RunBuffers;

  constructor(device: GpuDevice) {
    this.#device = device;
    const layout = new ParameterLayout(config);
    const allocate = (): RunBuffers => ({
      layout,
      weights: layout.allocate(device, "weights"),
      optimizer: allocateOptimizer(device, layout),
    });
    this.#saved = allocate();
    this.#loaded = allocate();
  }

  /** Makes the folder of a run, as `train` does. */
  async create(folder: string): Promise<void> {
    await createCheckpointFolder(folder, { config, tokenizer: "byte" });
  }

  /** Gives the device the numbers of a step and calls a saver with them, `saveTraining` unless told. */
  async save(folder: string, step: number, saver: typeof saveTraining = saveTraining): Promise<void> {
    const { layout, weights, optimizer } = this.#saved;
    const views = [weights, optimizer.firstMoments, optimizer.secondMoments];
    for (const [i, numbers] of numbersOf(layout, step).entries()) {
      writeTensor(this.#device, views[i]!.flat, numbers);
    }
    await saver(this.#device, {
      folder,
      layout,
      weights,
      optimizer,
      state: { step, run: `{"step": ${step}}`, flags: "{}" },
    });
  }

  /**
   * The step that a resumed run would go on from; null where a new run could start. Throws unless its configuration, its
   * weights and both its moments are those of that step.
   */
  async load(folder: string): Promise<number | null> {
    if (!await hasWeights(folder)) return null;
    assertEquals((await readConfig(folder)).hiddenSize, config.hiddenSize);
    const { step, run } = await readTrainingState(folder);
    assertEquals(run, `{"step": ${step}}`);
    const { layout, weights, optimizer } = this.#loaded;
    await loadTraining(this.#device, { folder, step, layout, weights, optimizer });
    const names = [...layout.places.keys()];
    const wanted = numbersOf(layout, step);
    for (const [i, views] of [weights, optimizer.firstMoments, optimizer.secondMoments].entries()) {
      const met = await readTensors(
        this.#device,
        names.map((name) => parameterTensor(layout, views, name)),
      );
      for (const [n, name] of names.entries()) {
        const { start } = layout.places.get(name)!;
        const differs = met[n]!.findIndex((value, k) => value !== wanted[i]![start + k]);
        assert(differs < 0, `${name} of array ${i} is not that of step ${step}`);
      }
    }
    return step;
  }
}

/** Weights and both moments, as flat arrays. */
function numbersOf(layout: ParameterLayout, step: number): Float32Array<ArrayBuffer>[] {
  const random = createRandom(step);
  return [0, 1, 2].map(() => Float32Array.from(random.normals(layout.size)));
}
