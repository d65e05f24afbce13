/** Models of the float64 reference on the device. */
import type { GpuDevice } from "../../gpu/device.ts";
import { writeTensor } from "../../gpu/tensor.ts";
import type { Model as GpuModel } from "../../model/forward.ts";
import { ParameterLayout, type ParameterViews } from "../../model/parameter_layout.ts";
import { parameterTensor } from "../../model/weights.ts";
import type { Model } from "../reference/weights.ts";
import { createRandom } from "./random.ts";
import type { Golden } from "./golden.ts";
import { randomModel } from "../reference/tiny_model.ts";
import type { ModelConfig } from "../../model/config.ts";

/** The model with its weights rounded to float32, so that both sides compute with the same numbers. */
export function roundedModel(config: ModelConfig, { seed }: { seed: number }): Model {
  const { weights } = randomModel(config, { random: createRandom(seed) });
  const rounded = Array.from(weights, ([name, weight]) => [name, weight.map(Math.fround)] as const);
  return { config, weights: new Map(rounded) };
}

/** The weights of a golden case as a model of the reference. */
export function goldenModel({ config, weights }: Golden): Model {
  return {
    config,
    weights: new Map(Array.from(weights, ([name, { data }]) => [name, Float64Array.from(data)])),
  };
}

/** Puts a model's weights on the device; it may have more than the configuration asks for. */
export function uploadModel(
  device: GpuDevice,
  { config, weights }: Model,
): GpuModel & { readonly weights: ParameterViews } {
  const layout = new ParameterLayout(config);
  const views = layout.allocate(device, "weights");
  writeModel(device, weights, { layout, views });
  return { config, layout, weights: views };
}

/** Puts a model's weights where a layout has its parameters. */
export function writeModel(
  device: GpuDevice,
  weights: Model["weights"],
  { layout, views }: { layout: ParameterLayout; views: ParameterViews },
): void {
  for (const name of layout.places.keys()) {
    writeTensor(device, parameterTensor(layout, views, name), Float32Array.from(weights.get(name)!));
  }
}
