/** Weights on the device: made at random, read from a checkpoint, handed back for one. */
import type { GpuDevice } from "../gpu/device.ts";
import { readTensor } from "../gpu/readback.ts";
import { elementCount, type Tensor, viewTensor, writeTensor } from "../gpu/tensor.ts";
import type { ParameterLayout, ParameterViews } from "./parameter_layout.ts";
import type { ParameterSpec } from "./parameters.ts";
import { fillNormal, uniform } from "./random.ts";
import type { TensorSource } from "./files/safetensors_writer.ts";
import { readWeight, type WeightFile } from "./files/weight_file.ts";

/** The region of one named weight in a flat array, without padding rows. */
export function parameterTensor(layout: ParameterLayout, { flat }: ParameterViews, name: string): Tensor {
  const { spec, start } = layout.places.get(name)!;
  return viewTensor(flat, { start, shape: spec.shape, label: name });
}

/** Fresh weights: matrices N(0, initializer_range), norms 1, a bias 0. Each weight has a random stream of its own. */
export function initializeWeights(
  device: GpuDevice,
  { layout, weights, seed }: { layout: ParameterLayout; weights: ParameterViews; seed: number },
): void {
  for (const { spec } of layout.places.values()) {
    const data = new Float32Array(elementCount(spec.shape)).fill(spec.kind === "norm" ? 1 : 0);
    if (spec.kind === "matrix") {
      fillNormal(data, { next: uniform(seed, spec.name), scale: layout.config.initializerRange });
    }
    writeTensor(device, parameterTensor(layout, weights, spec.name), data);
  }
}

/**
 * Reads a flat array's tensors from a file, each under `prefix` and its weight's name.
 *
 * @throws CheckpointError for a missing tensor or another shape.
 */
export async function loadParameters(
  device: GpuDevice,
  { layout, views, file, prefix = "" }: {
    layout: ParameterLayout;
    views: ParameterViews;
    file: WeightFile;
    prefix?: string;
  },
): Promise<void> {
  for (const { spec } of layout.places.values()) {
    const data = await readWeight(file, { name: prefix + spec.name, shape: spec.shape });
    writeTensor(device, parameterTensor(layout, views, spec.name), data);
  }
}

/** A flat array's tensors for a file, read back from the device one by one as they are written. */
export function parameterSources(
  device: GpuDevice,
  { layout, views, prefix = "" }: { layout: ParameterLayout; views: ParameterViews; prefix?: string },
): TensorSource[] {
  return [...layout.places.values()].map(({ spec }: { spec: ParameterSpec }) => ({
    name: prefix + spec.name,
    shape: spec.shape,
    data: async () => await readTensor(device, parameterTensor(layout, views, spec.name)) as Float32Array,
  }));
}
