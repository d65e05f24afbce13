/** Weights of a model that is timed. */
import type { GpuDevice } from "../gpu/device.ts";
import type { ModelConfig } from "../model/config.ts";
import { openCheckpoint } from "../model/files/checkpoint_source.ts";
import type { MatrixChoice } from "../model/load_weights.ts";
import type { ModelWeights } from "../model/model_weights.ts";
import { ParameterLayout } from "../model/parameter_layout.ts";
import type { TrainingBuffers } from "../model/training.ts";
import { initializeWeights, loadParameters } from "../model/weights.ts";
import { loadWeights } from "./session.ts";
import type { Terminal } from "./terminal.ts";
import { hasRandomWeights } from "./work_flags.ts";

/**
 * Random weights for a preset or a config.json, a checkpoint's for a checkpoint; in the training step's own array where there is one.
 *
 * @throws CheckpointError or MemoryError when they cannot be loaded.
 */
export async function timedWeights(
  device: GpuDevice,
  { model, config, training, choice, seed, terminal }: {
    model: string;
    config: ModelConfig;
    training: TrainingBuffers | null;
    choice: MatrixChoice;
    seed: number;
    terminal: Terminal;
  },
): Promise<ModelWeights> {
  if (!hasRandomWeights(model) && !training) {
    return await loadWeights(device, { source: await openCheckpoint(model), choice, terminal });
  }
  const layout = training?.layout ?? new ParameterLayout(config);
  const weights = training?.weights ?? layout.allocate(device, "weights");
  if (hasRandomWeights(model)) {
    initializeWeights(device, { layout, weights, seed });
  } else {
    using file = await (await openCheckpoint(model)).openWeights();
    await loadParameters(device, { layout, views: weights, file });
  }
  return weights;
}
