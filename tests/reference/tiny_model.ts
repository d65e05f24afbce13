import type {
  ExpertChoiceConfig,
  ModelConfig,
  RecursionConfig,
  RopeScaling,
  TokenChoiceConfig,
} from "../../model/config.ts";
import type { Random } from "../support/random.ts";
import { type Model, routerBias } from "./weights.ts";

/**
 * The smallest configuration with grouped heads: C 8, F 12, H 2, G 1, D 4, V 11; three layers without
 * recursion.
 */
export function tinyConfig(changes: Partial<ModelConfig> = {}): ModelConfig {
  return {
    vocabSize: 11,
    hiddenSize: 8,
    intermediateSize: 12,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    headDim: 4,
    numHiddenLayers: 3,
    rmsNormEps: 1e-5,
    ropeTheta: 100,
    ropeScaling: null,
    maxPositionEmbeddings: 64,
    tieWordEmbeddings: true,
    initializerRange: 0.02,
    recursion: null,
    router: null,
    kvCache: "recursion_wise",
    tokenizer: null,
    extra: {},
    ...changes,
  };
}

/** A tiny configuration with recursion, `router` null for the recursive baseline. */
export function tinyRecursiveConfig(
  recursion: RecursionConfig,
  { router = null, ...changes }: Partial<ModelConfig> = {},
): ModelConfig {
  const ends = recursion.sharing.startsWith("middle_") ? 2 : 0;
  const numHiddenLayers = recursion.numRecursions * recursion.blockLayers + ends;
  return tinyConfig({ numHiddenLayers, recursion, router, ...changes });
}

/** A scaling that shows in the tiny configuration: its second frequency lies on the ramp, and heads are magnified. */
export const tinyRopeScaling: RopeScaling = {
  kind: "yarn",
  factor: 4,
  originalMaxPositionEmbeddings: 16,
  betaFast: 1,
  betaSlow: 0.2,
  truncate: false,
  attentionFactor: 1.5,
};

/** The default expert-choice router with changes. */
export function tinyRouter(changes: Partial<ExpertChoiceConfig> = {}): ExpertChoiceConfig {
  return {
    kind: "expert_choice",
    capacities: null,
    function: "sigmoid",
    alpha: 0.1,
    temperature: 1,
    gating: "weighted",
    architecture: "linear",
    auxiliary: "loss",
    auxiliaryCoefficient: 0.001,
    zCoefficient: 0,
    random: false,
    ...changes,
  };
}

/** The default token-choice router with changes. */
export function tinyTokenRouter(changes: Partial<TokenChoiceConfig> = {}): TokenChoiceConfig {
  return {
    kind: "token_choice",
    function: "softmax",
    alpha: 1,
    temperature: 1,
    gating: "weighted",
    architecture: "linear",
    balancing: "loss",
    balancingCoefficient: 0.1,
    biasUpdateRate: 0.001,
    zCoefficient: 1e-5,
    random: false,
    ...changes,
  };
}

/** Routers of a configuration: what the names of their weights begin with, and their outputs. */
function routersOf({ router, recursion }: ModelConfig): { prefix: string; outputs: number }[] {
  if (!router || !recursion) return [];
  const { numRecursions } = recursion;
  if (router.kind === "token_choice") return [{ prefix: "model.router", outputs: numRecursions }];
  const groups = router.auxiliary === "router" ? ["routers", "aux_routers"] : ["routers"];
  return groups.flatMap((group) =>
    Array.from({ length: numRecursions }, (_, r) => ({ prefix: `model.${group}.${r}`, outputs: 1 }))
  );
}

/** A model with normal weights, large enough that every part matters; norm weights lie around 1. */
export function randomModel(config: ModelConfig, { random }: { random: Random }): Model {
  const { vocabSize, hiddenSize, intermediateSize, numAttentionHeads, numKeyValueHeads, headDim, recursion } =
    config;
  const weights = new Map<string, Float64Array>();
  function matrix(name: string, { rows, columns }: { rows: number; columns: number }): void {
    weights.set(name, random.normals(rows * columns, 1 / Math.sqrt(columns)));
  }
  function norm(name: string): void {
    weights.set(name, random.normals(hiddenSize, 0.2).map((value) => 1 + value));
  }
  const ends = recursion?.sharing.startsWith("middle_") ? 2 : 0;
  const layers = recursion ? recursion.blockLayers + ends : config.numHiddenLayers;
  weights.set("model.embed_tokens.weight", random.normals(vocabSize * hiddenSize));
  for (let u = 0; u < layers; u++) {
    const prefix = `model.layers.${u}`;
    norm(`${prefix}.input_layernorm.weight`);
    matrix(`${prefix}.self_attn.q_proj.weight`, { rows: numAttentionHeads * headDim, columns: hiddenSize });
    matrix(`${prefix}.self_attn.k_proj.weight`, { rows: numKeyValueHeads * headDim, columns: hiddenSize });
    matrix(`${prefix}.self_attn.v_proj.weight`, { rows: numKeyValueHeads * headDim, columns: hiddenSize });
    matrix(`${prefix}.self_attn.o_proj.weight`, { rows: hiddenSize, columns: numAttentionHeads * headDim });
    norm(`${prefix}.post_attention_layernorm.weight`);
    matrix(`${prefix}.mlp.gate_proj.weight`, { rows: intermediateSize, columns: hiddenSize });
    matrix(`${prefix}.mlp.up_proj.weight`, { rows: intermediateSize, columns: hiddenSize });
    matrix(`${prefix}.mlp.down_proj.weight`, { rows: hiddenSize, columns: intermediateSize });
  }
  norm("model.norm.weight");
  if (!config.tieWordEmbeddings) matrix("lm_head.weight", { rows: vocabSize, columns: hiddenSize });
  for (const { prefix, outputs } of routersOf(config)) {
    if (config.router!.architecture === "linear") {
      matrix(`${prefix}.weight`, { rows: outputs, columns: hiddenSize });
    } else {
      matrix(`${prefix}.hidden.weight`, { rows: 2 * hiddenSize, columns: hiddenSize });
      matrix(`${prefix}.output.weight`, { rows: outputs, columns: 2 * hiddenSize });
    }
  }
  if (config.router?.kind === "token_choice" && config.router.balancing === "loss_free") {
    weights.set(routerBias, random.normals(recursion!.numRecursions, 0.2));
  }
  return { config, weights };
}

/** `count` random token ids. */
export function randomIds(
  { vocabSize }: ModelConfig,
  { random, count }: { random: Random; count: number },
): Int32Array {
  return Int32Array.from({ length: count }, () => random.integer(vocabSize));
}
