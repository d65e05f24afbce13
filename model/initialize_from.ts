/**
 * Uptraining: a recursive model that starts from the layers of a trained vanilla one instead of random numbers.
 *
 * Each unique layer takes the weights of one layer of the source, or the mean of those that it stands for. Embedding,
 * final norm and head are copied, routers start fresh. The methods are those of the paper's code, arXiv 2507.10524.
 */
import type { GpuDevice } from "../gpu/device.ts";
import { elementCount, writeTensor } from "../gpu/tensor.ts";
import type { CheckpointSource } from "./files/checkpoint_source.ts";
import {
  ConfigError,
  hasUnsharedEnds,
  type ModelConfig,
  numUniqueLayers,
  type RecursionConfig,
} from "./config.ts";
import { modelConfigToJson } from "./config_file.ts";
import type { ParameterLayout, ParameterViews } from "./parameter_layout.ts";
import { layerPlan, parameterTable } from "./parameters.ts";
import { permutation, uniform } from "./random.ts";
import { readWeight, type WeightFile } from "./files/weight_file.ts";
import { initializeWeights, parameterTensor } from "./weights.ts";

/**
 * How the block's layers are taken from the source: evenly spaced (`stepwise`), as the mean of the layers that share
 * weights (`average`), the first (`lower`), the last (`upper`), or drawn and kept in order (`random`).
 */
export const INIT_METHODS = ["stepwise", "average", "lower", "upper", "random"] as const;
export type InitMethod = typeof INIT_METHODS[number];

/** Fields of config.json that source and model must have in common: what its weights' shapes and use depend on. */
const COMMON_FIELDS = [
  "vocab_size",
  "hidden_size",
  "intermediate_size",
  "num_attention_heads",
  "num_key_value_heads",
  "head_dim",
  "tie_word_embeddings",
  "rms_norm_eps",
  "rope_theta",
  "rope_scaling",
];

/**
 * For each unique layer of the model, the source layers whose mean it starts from: one, except for `average`. With
 * unshared ends the first and the last layer start from the source's own, the block from those between.
 *
 * @throws ConfigError when the source has too few layers, or for `average` not as many as the model unrolls to.
 */
export function sourceLayers(
  config: ModelConfig,
  { sourceLayerCount, method, seed }: { sourceLayerCount: number; method: InitMethod; seed: number },
): number[][] {
  if (method === "average") return sharedLayers(config, sourceLayerCount);
  const unique = numUniqueLayers(config);
  if (sourceLayerCount < unique) {
    throw new ConfigError(
      `Cannot initialise ${unique} unique layers: the source has ${sourceLayerCount}; ` +
        "choose a deeper source or a model with fewer layers",
    );
  }
  const ends = config.recursion && hasUnsharedEnds(config.recursion) ? 1 : 0;
  const from = ends;
  const to = sourceLayerCount - 1 - ends;
  const block = chooseLayers(method, { count: unique - 2 * ends, from, to, seed });
  const layers = ends ? [0, ...block, sourceLayerCount - 1] : block;
  return layers.map((layer) => [layer]);
}

/** `count` of the layers from..to, ascending. */
function chooseLayers(
  method: Exclude<InitMethod, "average">,
  { count, from, to, seed }: { count: number; from: number; to: number; seed: number },
): number[] {
  const consecutive = (first: number): number[] => Array.from({ length: count }, (_, i) => first + i);
  switch (method) {
    case "stepwise": {
      const step = count > 1 ? (to - from) / (count - 1) : 0;
      return consecutive(0).map((i) => roundHalfToEven(from + i * step));
    }
    case "lower":
      return consecutive(from);
    case "upper":
      return consecutive(to - count + 1);
    case "random": {
      const order = permutation(to - from + 1, uniform(seed, "source layers"));
      return Array.from(order.subarray(0, count).sort(), (layer) => from + layer);
    }
  }
}

/** Rounds as the paper's code does: 4.5 to 4 and 5.5 to 6. */
function roundHalfToEven(value: number): number {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + floor % 2 : Math.round(value);
}

/** The unrolled layers that share each unique one's weights. */
function sharedLayers(config: ModelConfig, sourceLayerCount: number): number[][] {
  const { numHiddenLayers } = config;
  if (sourceLayerCount !== numHiddenLayers) {
    throw new ConfigError(
      `Cannot average layers: the source has ${sourceLayerCount}, the model unrolls to ${numHiddenLayers}; ` +
        "choose stepwise, lower, upper or random, or a source of the same depth",
    );
  }
  const { first, steps, last } = layerPlan(config);
  const shared = Array.from({ length: numUniqueLayers(config) }, (): number[] => []);
  [...first, ...steps.flat(), ...last].forEach((unique, layer) => shared[unique]!.push(layer));
  return shared;
}

/**
 * Fills the weights from another model: vanilla, its layers mapped by `sourceLayers`, or with the model's
 * own recursion, its layers copied one to one and so every router weight of the same name and shape. What the source
 * does not give is as `initializeWeights` leaves it.
 *
 * @throws ConfigError for a source of other sizes, of another recursion or with too few layers; CheckpointError when
 * its weights cannot be read.
 */
export async function initializeFrom(
  device: GpuDevice,
  { layout, weights, source, method, seed }: {
    layout: ParameterLayout;
    weights: ParameterViews;
    source: CheckpointSource;
    method: InitMethod;
    seed: number;
  },
): Promise<void> {
  const { config } = layout;
  const { config: sourceConfig } = source;
  checkCommonFields(config, source);
  checkRecursion(config, source);
  const layers = sourceConfig.recursion
    ? Array.from({ length: numUniqueLayers(config) }, (_, u) => [u])
    : sourceLayers(config, { sourceLayerCount: sourceConfig.numHiddenLayers, method, seed });
  using file = await source.openWeights();
  initializeWeights(device, { layout, weights, seed });
  const withoutRouter = new Set(parameterTable({ ...config, router: null }).map(({ name }) => name));
  for (const { spec: { name, shape } } of layout.places.values()) {
    const isRouter = !withoutRouter.has(name);
    if (isRouter && !(sourceConfig.recursion && hasTensor(file, { name, shape }))) continue;
    const data = await readMean(file, { names: sourceNames(name, layers), shape });
    writeTensor(device, parameterTensor(layout, weights, name), data);
  }
}

function checkCommonFields(config: ModelConfig, { path, config: sourceConfig }: CheckpointSource): void {
  const [wanted, met] = [modelConfigToJson(config), modelConfigToJson(sourceConfig)];
  for (const field of COMMON_FIELDS) {
    const [metText, wantedText] = [met, wanted].map((json) => JSON.stringify(json[field] ?? null));
    if (metText !== wantedText) {
      throw new ConfigError(
        `Cannot initialise from ${path}: its ${field} is ${metText}, the model's ${wantedText}; ` +
          "choose a source and a model that differ in layers only",
      );
    }
  }
}

function checkRecursion({ recursion }: ModelConfig, { path, config: sourceConfig }: CheckpointSource): void {
  const [wanted, met] = [recursionText(recursion), recursionText(sourceConfig.recursion)];
  if (sourceConfig.recursion && met !== wanted) {
    throw new ConfigError(
      `Cannot initialise from ${path}: its recursion is ${met}, the model's ${wanted}; ` +
        "choose a vanilla source or one of the same recursion",
    );
  }
}

function recursionText(recursion: RecursionConfig | null): string {
  if (!recursion) return "none";
  const { sharing, numRecursions, blockLayers } = recursion;
  return `${sharing} with ${numRecursions} recursions of ${blockLayers} layers`;
}

function hasTensor(
  { entries }: WeightFile,
  { name, shape }: { name: string; shape: readonly number[] },
): boolean {
  return entries.get(name)?.shape.join() === shape.join();
}

/** Names of the source's tensors that a weight starts from. */
function sourceNames(name: string, layers: readonly (readonly number[])[]): string[] {
  const [, unique, rest] = /^model\.layers\.(\d+)\.(.+)$/.exec(name) ?? [];
  if (unique === undefined) return [name];
  return layers[Number(unique)]!.map((layer) => `model.layers.${layer}.${rest}`);
}

/** The mean of tensors of one shape, summed in float64; of one tensor, its own bits. */
async function readMean(
  file: WeightFile,
  { names, shape }: { names: readonly string[]; shape: readonly number[] },
): Promise<Float32Array<ArrayBuffer>> {
  if (names.length === 1) return await readWeight(file, { name: names[0]!, shape });
  const sum = new Float64Array(elementCount(shape));
  for (const name of names) {
    const data = await readWeight(file, { name, shape });
    for (let i = 0; i < sum.length; i++) sum[i]! += data[i]!;
  }
  return Float32Array.from(sum, (value) => value / names.length);
}
