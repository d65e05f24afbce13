/** Opening what a command works with: the device, a checkpoint's model. */
import type { AdapterInfo } from "../gpu/adapter.ts";
import { type GpuDevice, openDevice } from "../gpu/device.ts";
import { MemoryError } from "../gpu/errors.ts";
import { formatBytes, planAllocator } from "../gpu/memory.ts";
import { readConfigFile } from "../model/files/checkpoint.ts";
import { type CheckpointSource, openCheckpoint } from "../model/files/checkpoint_source.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import {
  fillWeights,
  formatCounts,
  type MatrixChoice,
  planWeights,
  type WeightChoices,
} from "../model/load_weights.ts";
import type { ModelWeights } from "../model/model_weights.ts";
import { presetConfig, presetNames } from "../model/presets.ts";
import type { Tokenizer } from "../model/text/tokenizer.ts";
import { tokenizerFor } from "../model/text/tokenizer_source.ts";
import { openProgress } from "./progress.ts";
import type { Terminal } from "./terminal.ts";
import { tuneDevice } from "./tuning.ts";

/** Part of the host's free memory that a software adapter may fill. */
const HOST_SHARE = 0.9;

/** Weights from which loading takes long enough to show how far it is. */
const PROGRESS_NUMBERS = 20e6;

/**
 * Opens the device and says which adapter it is; its kernels are those that are the fastest on it. A software adapter's
 * buffers are host memory: that is its budget.
 */
export async function openNamedDevice(terminal: Terminal): Promise<GpuDevice> {
  const device = await openDevice();
  terminal.note(adapterLine(device.info));
  await tuneDevice(device, { terminal });
  if (device.info.isSoftware) device.memory.budget = hostMemory();
  return device;
}

/** The line that names an adapter at the start of a command. */
export function adapterLine(
  { description, isSoftware }: Pick<AdapterInfo, "description" | "isSoftware">,
): string {
  return `adapter: ${description}${isSoftware ? " (software: runs on the processor, slowly)" : ""}`;
}

/** Bytes of host memory that buffers may take. */
export function hostMemory(): number {
  return Math.floor(Deno.systemMemoryInfo().available * HOST_SHARE);
}

/** A preset by name, a config.json, else a model on disk. */
export async function configOf(model: string): Promise<ModelConfig> {
  if (presetNames().includes(model)) return presetConfig(model);
  if (model.endsWith(".json")) return await readConfigFile(model);
  const isThere = await Deno.stat(model).then(() => true, () => false);
  if (isThere) return (await openCheckpoint(model)).config;
  throw new ConfigError(
    `Cannot use "${model}": it is neither a checkpoint's folder, a .gguf file, a config.json nor a preset, such as tiny or 360m-mor3`,
  );
}

/** A model on a device. */
export interface LoadedModel {
  readonly device: GpuDevice;
  readonly source: CheckpointSource;
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
}

/**
 * Opens a model and the device, and loads its weights.
 *
 * @param choice How matrices are kept on the device.
 * @throws ConfigError, CheckpointError or MemoryError when the model cannot be used.
 */
export async function loadModel(
  path: string,
  { terminal, choice = "auto" }: { terminal: Terminal; choice?: MatrixChoice | undefined },
): Promise<LoadedModel> {
  const source = await openCheckpoint(path);
  const device = await openNamedDevice(terminal);
  const weights = await loadWeights(device, { source, choice, terminal });
  return { device, source, config: source.config, weights };
}

/** Loads the weights of a model onto an open device; says in which formats. */
export async function loadWeights(
  device: GpuDevice,
  { source, terminal, ...choices }: WeightChoices & { source: CheckpointSource; terminal: Terminal },
): Promise<ModelWeights> {
  const { config, path } = source;
  using file = await source.openWeights();
  const plan = planAllocator();
  planWeights(plan, { config, file, ...choices });
  const { available } = device.memory;
  if (plan.memory.live > available) {
    throw new MemoryError(
      `Cannot load ${path}: its weights take ${formatBytes(plan.memory.live)}, ${
        formatBytes(available)
      } are ` +
        "available; --dtype f16, q8_0 or q4_0 takes less",
    );
  }
  const planned = planWeights(device, { config, file, ...choices });
  const counts = formatCounts(planned);
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  const isLong = total > PROGRESS_NUMBERS && terminal.isInteractive;
  const progress = isLong ? openProgress(terminal, { max: Math.round(total / 1e6), value: 0 }) : null;
  try {
    await fillWeights(device, planned, {
      file,
      onProgress: (numbers) => progress?.update(Math.round(numbers / 1e6), "million weights loaded"),
    });
  } finally {
    await progress?.stop();
  }
  const formats = counts.map(([format, count]) => `${count.toLocaleString("en")} as ${format}`).join(", ");
  terminal.note(`weights: ${formats}; norms and routers as f32`);
  return planned.weights;
}

/** The model's own tokenizer. */
export async function tokenizerOf({ config, readTokenizer }: CheckpointSource): Promise<Tokenizer> {
  return tokenizerFor(await readTokenizer(), { config });
}

/** Peak of the device's buffers, for the end of a run. */
export function peakMemory(device: GpuDevice): string {
  return formatBytes(device.memory.peak);
}
