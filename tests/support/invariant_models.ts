/** Models, a text and a pass for the tests of invariants. */
import type { GpuDevice } from "../../gpu/device.ts";
import type { ExpertChoiceConfig, ModelConfig } from "../../model/config.ts";
import { forwardCausal, type ForwardInput, type ForwardResult, forwardTopK } from "../../model/forward.ts";
import {
  randomIds,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";
import type { Model } from "../reference/weights.ts";
import { roundedModel, uploadModel } from "./gpu_model.ts";
import { createRandom } from "./random.ts";

export const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
export const tokens = 13;
const flatIds = Array.from(randomIds(tinyConfig(), { random: createRandom(81), count: 2 * tokens }));
export const ids = [flatIds.slice(0, tokens), flatIds.slice(tokens)];

/** Expert choice with the default router, changed. */
export function routedModel(changes: Partial<ExpertChoiceConfig> = {}): Model {
  const config = tinyRecursiveConfig(middleCycle, { router: tinyRouter({ alpha: 1, ...changes }) });
  return roundedModel(config, { seed: 80 });
}

/** Token choice with the default router, the configuration changed. */
export function tokenModel(changes: Partial<ModelConfig> = {}): Model {
  const config = tinyRecursiveConfig(middleCycle, { router: tinyTokenRouter(), ...changes });
  return roundedModel(config, { seed: 85 });
}

/** The same weights under another configuration. */
export function withConfig({ weights }: Model, config: ModelConfig): Model {
  return { weights, config };
}

const passes = { "causal": forwardCausal, "top-k": forwardTopK };

/** One pass by the given routing, without targets. */
export function pass(
  device: GpuDevice,
  { model, ids, routing }: { model: Model; ids: ForwardInput["ids"]; routing: keyof typeof passes },
): Promise<ForwardResult> {
  const input = { ids, targets: null };
  return passes[routing](device, { model: uploadModel(device, model), input, gradientsPath: null });
}
