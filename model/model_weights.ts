/** A model's weights as its operations read them, whatever format they are in and whatever buffers they lie in. */
import { type Matrix, viewRows } from "../gpu/packed_matrix.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type ModelConfig, numUniqueLayers } from "./config.ts";
import { hasRouterBias, paddedVocabSize, ROUTER_BIAS, type RouterSpec, routerTable } from "./parameters.ts";

/** The weights of one layer. */
export interface LayerWeights<M extends Matrix = Matrix> {
  /** (C). */
  readonly inputNorm: Tensor;
  /** ((H + 2 G) D, C): q, k and v projections. */
  readonly qkv: M;
  /** (H D, C): the first rows of `qkv`. */
  readonly q: M;
  /** (C, H D). */
  readonly output: M;
  /** (C). */
  readonly postAttentionNorm: Tensor;
  /** (2 F, C): gate and up projections. */
  readonly gateUp: M;
  /** (C, F). */
  readonly down: M;
}

/** A router's weights; O outputs. */
export interface RouterWeights {
  /** (2 C, C); null for a linear router. */
  readonly hidden: Tensor | null;
  /** (O, C), or (O, 2 C) after a hidden layer. */
  readonly output: Tensor;
}

/** All weights of a model. */
export interface ModelWeights<M extends Matrix = Matrix> {
  /** (Vp, C), Vp the padded vocabulary. */
  readonly embedding: M;
  readonly layers: readonly LayerWeights<M>[];
  /** (C). */
  readonly norm: Tensor;
  /** (Vp, C); the embedding itself when tied. */
  readonly head: M;
  /** For each recursion step with expert choice, one with token choice. */
  readonly routers: readonly RouterWeights[];
  /** For each recursion step, where auxiliary routers learn what top-k decides. */
  readonly auxiliaryRouters: readonly RouterWeights[];
  /** (R): only with loss-free balancing. */
  readonly routerBias: Tensor | null;
}

/** Where the memory of weights comes from. */
export interface WeightMemory<M extends Matrix> {
  /** Weights of a layer or table, one below the other where several projections read the same input. */
  matrix(names: readonly string[], shape: readonly [rows: number, columns: number]): M;
  /** A weight that is f32 always: a norm, or of a router. */
  tensor(name: string, shape: readonly number[]): Tensor;
}

/** The weights of a model in some memory, asked for in the order of the forward pass. */
export function arrangeWeights<M extends Matrix>(
  config: ModelConfig,
  memory: WeightMemory<M>,
): ModelWeights<M> {
  const { hiddenSize: c, intermediateSize: f, numAttentionHeads: h, numKeyValueHeads: g, headDim: d } =
    config;
  const vocabulary = [paddedVocabSize(config), c] as const;
  function layer(u: number): LayerWeights<M> {
    const name = (part: string): string => `model.layers.${u}.${part}.weight`;
    const heads = ["q", "k", "v"].map((part) => name(`self_attn.${part}_proj`));
    const inputNorm = memory.tensor(name("input_layernorm"), [c]);
    const qkv = memory.matrix(heads, [(h + 2 * g) * d, c]);
    return {
      inputNorm,
      qkv,
      q: viewRows(qkv, { count: h * d, label: heads[0]! }),
      output: memory.matrix([name("self_attn.o_proj")], [c, h * d]),
      postAttentionNorm: memory.tensor(name("post_attention_layernorm"), [c]),
      gateUp: memory.matrix([name("mlp.gate_proj"), name("mlp.up_proj")], [2 * f, c]),
      down: memory.matrix([name("mlp.down_proj")], [c, f]),
    };
  }
  function router({ name, outputs }: RouterSpec): RouterWeights {
    if (config.router!.architecture === "linear") {
      return { hidden: null, output: memory.tensor(`${name}.weight`, [outputs, c]) };
    }
    return {
      hidden: memory.tensor(`${name}.hidden.weight`, [2 * c, c]),
      output: memory.tensor(`${name}.output.weight`, [outputs, 2 * c]),
    };
  }
  const embedding = memory.matrix(["model.embed_tokens.weight"], vocabulary);
  const layers = Array.from({ length: numUniqueLayers(config) }, (_, u) => layer(u));
  const norm = memory.tensor("model.norm.weight", [c]);
  const routers = routerTable(config);
  return {
    embedding,
    layers,
    norm,
    head: config.tieWordEmbeddings ? embedding : memory.matrix(["lm_head.weight"], vocabulary),
    routers: routers.filter(({ isAuxiliary }) => !isAuxiliary).map(router),
    auxiliaryRouters: routers.filter(({ isAuxiliary }) => isAuxiliary).map(router),
    routerBias: hasRouterBias(config) ? memory.tensor(ROUTER_BIAS, [config.recursion!.numRecursions]) : null,
  };
}
