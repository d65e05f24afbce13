/**
 * Names that the paper's PyTorch code gives to a model's weights: every unrolled layer has names of its own, and layers
 * that share weights hold the same ones.
 *
 * Read in github raymin0223/mixture_of_recursions: at commit 17f305c `model/mor_model/modeling_llama.py`,
 * `model/mor_model/token_choice_router.py`, `model/mor_model/util.py` and `model/sharing_strategy/llama.py`, at 82c97f2
 * `model/mor_model/expert_choice_router.py`, from where on attention is shared as the rest.
 */
import { hasUnsharedEnds, type ModelConfig, numUniqueLayers } from "../config.ts";
import { layerPlan, type ParameterSpec, parameterTable, ROUTER_BIAS } from "../parameters.ts";

/** One of our weights and all its names there, the first use first. */
export interface AuthorsWeight {
  readonly spec: ParameterSpec;
  readonly names: readonly [string, ...string[]];
}

/**
 * Every weight of a recursive model with its names there: all copies of a shared layer's, and the head of tied
 * embeddings. Together they are that code's whole state dict.
 */
export function authorsLayout(config: ModelConfig): AuthorsWeight[] {
  const layers = layerNames(config);
  return parameterTable(config).map((spec) => {
    const { name } = spec;
    const [, unique, rest] = /^model\.layers\.(\d+)\.(.+)$/.exec(name) ?? [];
    if (unique !== undefined) {
      const [first, ...copies] = layers[Number(unique)]!.map((layer) => `${layer}.${rest}`);
      return { spec, names: [first!, ...copies] };
    }
    if (name === "model.embed_tokens.weight" && config.tieWordEmbeddings) {
      return { spec, names: [name, "lm_head.weight"] };
    }
    return { spec, names: [routerName(config, name) ?? name] };
  });
}

/** For each unique layer, the names of the unrolled ones that use it. */
function layerNames(config: ModelConfig): string[][] {
  const { first, steps, last } = layerPlan(config);
  const names = Array.from({ length: numUniqueLayers(config) }, (): string[] => []);
  first.forEach((unique, i) => names[unique]!.push(`model.layers.${i}`));
  steps.forEach((layers, step) =>
    layers.forEach((unique, j) => names[unique]!.push(stepLayerName(config, { step, j })))
  );
  last.forEach((unique) => names[unique]!.push(`model.layers.${first.length + recursionModules(config)}`));
  return names;
}

/** Entries of `model.layers` there that make up the recursion: with a router, a step or all steps are one module. */
function recursionModules({ router, recursion }: ModelConfig): number {
  const { numRecursions, blockLayers } = recursion!;
  if (!router) return numRecursions * blockLayers;
  return router.kind === "expert_choice" ? numRecursions : 1;
}

/** The j-th layer of a recursion step. */
function stepLayerName(config: ModelConfig, { step, j }: { step: number; j: number }): string {
  const { router, recursion } = config;
  const start = recursionStart(config);
  if (!router) return `model.layers.${start + step * recursion!.blockLayers + j}`;
  return router.kind === "expert_choice"
    ? `model.layers.${start + step}.block.${j}`
    : `model.layers.${start}.block_list.${step}.${j}`;
}

/** The first entry of `model.layers` there that belongs to the recursion. */
function recursionStart({ recursion }: ModelConfig): number {
  return hasUnsharedEnds(recursion!) ? 1 : 0;
}

/** A router weight's name there; undefined for other weights. */
function routerName(config: ModelConfig, name: string): string | undefined {
  const start = recursionStart(config);
  if (name === ROUTER_BIAS) return `model.layers.${start}.router_bias`;
  const [, kind, step = "0", part] = /^model\.(router|routers|aux_routers)(?:\.(\d+))?((?:\.\w+)?\.weight)$/
    .exec(name) ?? [];
  if (kind === undefined) return undefined;
  const module = kind === "aux_routers" ? "mlp_router" : "mor_router";
  // A router with a hidden layer is a list of three there, the activation between the two matrices.
  const matrix = part!.replace(".hidden", ".0").replace(".output", ".2");
  return `model.layers.${start + Number(step)}.${module}.router${matrix}`;
}
