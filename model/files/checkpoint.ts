/**
 * Checkpoints: a folder with config.json, model.safetensors and, during training, training/step-N.safetensors.
 *
 * Every file is replaced in one step. model.safetensors names its step, and is put in place after the training state
 * of that step and before the states of other steps are removed. So wherever a run is killed, the weights there have
 * their training state beside them.
 */
import { join } from "@std/path";
import type { GpuDevice } from "../../gpu/device.ts";
import type { ModelConfig } from "../config.ts";
import { modelConfigToJson, parseModelConfigText } from "../config_file.ts";
import { makeFolder, writeJson } from "./whole_file.ts";
import type { OptimizerState } from "../optimizer.ts";
import type { ParameterLayout, ParameterViews } from "../parameter_layout.ts";
import { CheckpointError, SafetensorsFile } from "./safetensors.ts";
import { writeSafetensors } from "./safetensors_writer.ts";
import { readTextFile } from "./text_file.ts";
import { type TokenizerSource, writeTokenizerFiles } from "../text/tokenizer_source.ts";
import { loadParameters, parameterSources } from "../weights.ts";

const CONFIG = "config.json";
const WEIGHTS = "model.safetensors";
const TRAINING = "training";
const MOMENTS = { first: "exp_avg.", second: "exp_avg_sq." };

/** What a training run adds to its weights. */
export interface TrainingState {
  /** Updates done. */
  readonly step: number;
  /** The settings that the run's results depend on, as JSON. */
  readonly run: string;
  /** Settings of whoever drove the run, as JSON. */
  readonly flags: string;
}

/** @throws ConfigError or CheckpointError when the folder has no usable config.json. */
export async function readConfig(folder: string): Promise<ModelConfig> {
  return await readConfigFile(join(folder, CONFIG));
}

/** @throws CheckpointError for an unreadable file, ConfigError for an unusable configuration. */
export async function readConfigFile(path: string): Promise<ModelConfig> {
  return parseModelConfigText(await readTextFile(path), { source: path });
}

/** @throws CheckpointError when the weights are missing, damaged or of other shapes than the configuration's. */
export async function loadWeights(
  device: GpuDevice,
  { folder, layout, weights }: { folder: string; layout: ParameterLayout; weights: ParameterViews },
): Promise<void> {
  using file = await SafetensorsFile.open(join(folder, WEIGHTS));
  await loadParameters(device, { layout, views: weights, file });
}

/** Creates the folder, if it is not there, with the configuration and the tokenizer's files. */
export async function createCheckpointFolder(
  folder: string,
  { config, tokenizer }: { config: ModelConfig; tokenizer: TokenizerSource },
): Promise<void> {
  await makeFolder(join(folder, TRAINING));
  await writeTokenizerFiles(folder, tokenizer);
  await writeConfig(folder, config);
}

/** Writes a folder's config.json. */
export async function writeConfig(folder: string, config: ModelConfig): Promise<void> {
  await writeJson(join(folder, CONFIG), modelConfigToJson(config));
}

/** Writes weights and training state; the checkpoint before stays until both are complete. */
export async function saveTraining(
  device: GpuDevice,
  { folder, layout, weights, optimizer, state }: {
    folder: string;
    layout: ParameterLayout;
    weights: ParameterViews;
    optimizer: OptimizerState;
    state: TrainingState;
  },
): Promise<void> {
  const step = String(state.step);
  await writeSafetensors(statePath(folder, state.step), {
    tensors: [
      ...parameterSources(device, { layout, views: optimizer.firstMoments, prefix: MOMENTS.first }),
      ...parameterSources(device, { layout, views: optimizer.secondMoments, prefix: MOMENTS.second }),
    ],
    metadata: { format: "pt", step, run: state.run, flags: state.flags },
  });
  await writeSafetensors(join(folder, WEIGHTS), {
    tensors: parameterSources(device, { layout, views: weights }),
    metadata: { format: "pt", step },
  });
  await removeOtherStates(folder, state.step);
}

/** Whether the folder holds a checkpoint to resume from. */
export async function hasWeights(folder: string): Promise<boolean> {
  return await Deno.stat(join(folder, WEIGHTS)).then(() => true, () => false);
}

/**
 * The training state of the folder's weights, without the moments.
 *
 * @throws CheckpointError when the weights have none.
 */
export async function readTrainingState(folder: string): Promise<TrainingState> {
  using weights = await SafetensorsFile.open(join(folder, WEIGHTS));
  const step = Number(weights.metadata.step ?? NaN);
  if (!Number.isInteger(step)) {
    throw new CheckpointError(`Cannot resume from ${folder}: its weights were not saved by a training run`);
  }
  using file = await SafetensorsFile.open(statePath(folder, step));
  return { step, run: file.metadata.run ?? "{}", flags: file.metadata.flags ?? "{}" };
}

/** Reads weights and moments of a run, as `saveTraining` left them. */
export async function loadTraining(
  device: GpuDevice,
  { folder, layout, weights, optimizer, step }: {
    folder: string;
    layout: ParameterLayout;
    weights: ParameterViews;
    optimizer: OptimizerState;
    step: number;
  },
): Promise<void> {
  await loadWeights(device, { folder, layout, weights });
  using file = await SafetensorsFile.open(statePath(folder, step));
  await loadParameters(device, { layout, views: optimizer.firstMoments, file, prefix: MOMENTS.first });
  await loadParameters(device, { layout, views: optimizer.secondMoments, file, prefix: MOMENTS.second });
}

/** Training states and what a killed run left of one; what else lies there is the user's. */
const STATE = /^\.?step-\d+\.safetensors/;

function statePath(folder: string, step: number): string {
  return join(folder, TRAINING, `step-${step}.safetensors`);
}

async function removeOtherStates(folder: string, step: number): Promise<void> {
  const kept = `step-${step}.safetensors`;
  for await (const { name } of Deno.readDir(join(folder, TRAINING))) {
    if (STATE.test(name) && name !== kept) await Deno.remove(join(folder, TRAINING, name));
  }
}
