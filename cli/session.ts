/** Opening what a command works with: the device, a checkpoint's model. */
import { type GpuDevice, openDevice } from "../gpu/device.ts";
import { formatBytes } from "../gpu/memory.ts";
import { loadWeights, readConfig } from "../model/checkpoint.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import { ParameterLayout, type ParameterViews } from "../model/parameter_layout.ts";
import { presetConfig, presetNames } from "../model/presets.ts";
import { byteTokenizer, type Tokenizer } from "../model/tokenizer.ts";
import type { Terminal } from "./terminal.ts";

/** Part of the host's free memory that a software adapter may fill. */
const HOST_SHARE = 0.9;

/** Opens the device and says which adapter it is. A software adapter's buffers are host memory: that is its budget. */
export async function openNamedDevice(terminal: Terminal): Promise<GpuDevice> {
  const device = await openDevice();
  const { description, isSoftware } = device.info;
  terminal.note(`adapter: ${description}${isSoftware ? " (software: runs on the processor, slowly)" : ""}`);
  if (isSoftware) device.memory.budget = hostMemory();
  return device;
}

/** Bytes of host memory that buffers may take. */
export function hostMemory(): number {
  return Math.floor(Deno.systemMemoryInfo().available * HOST_SHARE);
}

/** A preset by name, else a checkpoint folder. */
export async function configOf(model: string): Promise<ModelConfig> {
  if (presetNames().includes(model)) return presetConfig(model);
  const isFolder = await Deno.stat(model).then((info) => info.isDirectory, () => false);
  if (!isFolder) {
    throw new ConfigError(
      `Cannot use "${model}": it is neither a checkpoint's folder nor a preset, such as tiny or 360m-mor3`,
    );
  }
  return await readConfig(model);
}

/** A checkpoint's model on a device. */
export interface LoadedModel {
  readonly config: ModelConfig;
  readonly layout: ParameterLayout;
  readonly weights: ParameterViews;
}

/** @throws ConfigError, CheckpointError or MemoryError when the checkpoint cannot be used. */
export async function loadModel(
  folder: string,
  { terminal }: { terminal: Terminal },
): Promise<LoadedModel & { device: GpuDevice }> {
  const config = await readConfig(folder);
  const device = await openNamedDevice(terminal);
  const layout = new ParameterLayout(config);
  const weights = layout.allocate(device, "weights");
  await loadWeights(device, { folder, layout, weights });
  return { device, config, layout, weights };
}

/** @throws ConfigError for a checkpoint without a tokenizer that this program has. */
export function tokenizerOf({ tokenizer }: ModelConfig, { source }: { source: string }): Tokenizer {
  if (tokenizer === "byte") return byteTokenizer;
  throw new ConfigError(
    `Cannot read text with ${source}: its config.json names no tokenizer; only "byte" is known`,
  );
}

/** Peak of the device's buffers, for the end of a run. */
export function peakMemory(device: GpuDevice): string {
  return formatBytes(device.memory.peak);
}
