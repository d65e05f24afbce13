/**
 * The table of every weight, name and shape: the model's architecture in one view, and the order in which its layers
 * run.
 */
import { elementCount } from "../gpu/tensor.ts";
import { hasUnsharedEnds, type ModelConfig, numUniqueLayers } from "./config.ts";

/** One weight as a checkpoint stores it. */
export interface ParameterSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** Matrices start as N(0, initializer_range), norms as ones, a bias as zeros. */
  readonly kind: "matrix" | "norm" | "bias";
}

/** Vocabulary rows are padded to a multiple of this, so that logits can be read four at a time. */
const VOCABULARY_ALIGNMENT = 16;

/** Vocabulary size with padding: the logits' row length. Padding rows are zero and stay zero. */
export function paddedVocabSize({ vocabSize }: ModelConfig): number {
  return Math.ceil(vocabSize / VOCABULARY_ALIGNMENT) * VOCABULARY_ALIGNMENT;
}

/** Every weight of a checkpoint, in the order of the forward pass. */
export function parameterTable(config: ModelConfig): ParameterSpec[] {
  const { hiddenSize: c, intermediateSize: f, numAttentionHeads: h, numKeyValueHeads: g, headDim: d } =
    config;
  const table: ParameterSpec[] = [];
  function matrix(name: string, rows: number, columns: number): void {
    table.push({ name: `${name}.weight`, shape: [rows, columns], kind: "matrix" });
  }
  function norm(name: string): void {
    table.push({ name: `${name}.weight`, shape: [c], kind: "norm" });
  }
  matrix("model.embed_tokens", config.vocabSize, c);
  for (let u = 0; u < numUniqueLayers(config); u++) {
    const layer = `model.layers.${u}`;
    norm(`${layer}.input_layernorm`);
    matrix(`${layer}.self_attn.q_proj`, h * d, c);
    matrix(`${layer}.self_attn.k_proj`, g * d, c);
    matrix(`${layer}.self_attn.v_proj`, g * d, c);
    matrix(`${layer}.self_attn.o_proj`, c, h * d);
    norm(`${layer}.post_attention_layernorm`);
    matrix(`${layer}.mlp.gate_proj`, f, c);
    matrix(`${layer}.mlp.up_proj`, f, c);
    matrix(`${layer}.mlp.down_proj`, c, f);
  }
  norm("model.norm");
  if (!config.tieWordEmbeddings) matrix("lm_head", config.vocabSize, c);
  for (const { name, outputs } of routerTable(config)) {
    if (config.router!.architecture === "linear") {
      matrix(name, outputs, c);
    } else {
      matrix(`${name}.hidden`, 2 * c, c);
      matrix(`${name}.output`, outputs, 2 * c);
    }
  }
  if (hasRouterBias(config)) {
    table.push({ name: ROUTER_BIAS, shape: [config.recursion!.numRecursions], kind: "bias" });
  }
  return table;
}

/** The bias of loss-free balancing. */
export const ROUTER_BIAS = "model.router.bias";

/** Whether loss-free balancing gives the router a bias. */
export function hasRouterBias({ router }: ModelConfig): boolean {
  return router?.kind === "token_choice" && router.balancing === "loss_free";
}

/** A router's name in a checkpoint and its number of outputs. */
export interface RouterSpec {
  readonly name: string;
  readonly outputs: number;
  /** Learns what top-k decides, to replace it when a later token must not count. */
  readonly isAuxiliary: boolean;
}

/** Expert choice has a router for each recursion step, never shared; token choice has one, with an output per depth. */
export function routerTable({ recursion, router }: ModelConfig): RouterSpec[] {
  if (!router) return [];
  const steps = recursion!.numRecursions;
  if (router.kind === "token_choice") return [{ name: "model.router", outputs: steps, isAuxiliary: false }];
  const kinds = router.auxiliary === "router" ? ["routers", "aux_routers"] : ["routers"];
  return kinds.flatMap((kind) =>
    Array.from({ length: steps }, (_, r) => ({
      name: `model.${kind}.${r}`,
      outputs: 1,
      isAuxiliary: kind === "aux_routers",
    }))
  );
}

/** Number of weights, each counted once. */
export function parameterCount(config: ModelConfig): number {
  return parameterTable(config).reduce((sum, { shape }) => sum + elementCount(shape), 0);
}

/** Number of weights that an unrolled model of the same depth would have: no sharing, no routers. */
export function unrolledParameterCount(config: ModelConfig): number {
  return parameterCount({ ...config, recursion: null, router: null });
}

/** Unique layers in the order in which they run: before the recursion, in each of its steps, after it. */
export interface LayerPlan {
  readonly first: readonly number[];
  readonly steps: readonly (readonly number[])[];
  readonly last: readonly number[];
}

/**
 * How unrolled layers map to unique ones: the cycle strategies repeat the block as a whole, the sequence strategies
 * each of its layers (then a "step" is just as many layers as the block has). Vanilla: all before.
 */
export function layerPlan(config: ModelConfig): LayerPlan {
  const unique = Array.from({ length: numUniqueLayers(config) }, (_, u) => u);
  if (!config.recursion) return { first: unique, steps: [], last: [] };
  const { numRecursions, blockLayers, sharing } = config.recursion;
  const ends = hasUnsharedEnds(config.recursion) ? 1 : 0;
  const steps = Array.from(
    { length: numRecursions },
    (_, r) =>
      Array.from({ length: blockLayers }, (_, j) => {
        const unrolled = r * blockLayers + j;
        return ends + (sharing.endsWith("cycle") ? j : Math.floor(unrolled / numRecursions));
      }),
  );
  return { first: unique.slice(0, ends), steps, last: unique.slice(unique.length - ends) };
}
