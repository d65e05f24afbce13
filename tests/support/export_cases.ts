/** Models of `fixtures/export`: small ones of every kind that other people's code ran. */
import type { ModelConfig } from "../../model/config.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";

/** Every weight's numbers are `seededNumbers` of this seed. */
export const EXPORT_SEED = 4;

/** A vanilla model on bytes whose heads are not hidden_size / num_attention_heads wide. */
export const vanillaCase: ModelConfig = tinyConfig({
  vocabSize: 257,
  hiddenSize: 32,
  intermediateSize: 44,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 12,
  ropeTheta: 10000,
  tokenizer: "byte",
});

/** Models that the authors' code has. */
export const authorsCases: Readonly<Record<string, ModelConfig>> = {
  recursive_cycle: tinyRecursiveConfig({ sharing: "cycle", numRecursions: 3, blockLayers: 2 }, {
    tieWordEmbeddings: false,
  }),
  recursive_middle_sequence: tinyRecursiveConfig({
    sharing: "middle_sequence",
    numRecursions: 2,
    blockLayers: 2,
  }),
  recursive_kv_shared: tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 2, blockLayers: 2 }, {
    kvCache: "shared",
  }),
  expert_choice: tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 3, blockLayers: 2 }, {
    router: tinyRouter(),
  }),
  expert_choice_cycle: tinyRecursiveConfig({ sharing: "cycle", numRecursions: 2, blockLayers: 1 }, {
    router: tinyRouter({
      capacities: [0.9, 0.4],
      function: "tanh",
      alpha: 0.5,
      architecture: "mlp",
      auxiliary: "router",
    }),
    tieWordEmbeddings: false,
  }),
  expert_choice_additive: tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 2, blockLayers: 1 }, {
    router: tinyRouter({ function: "none", alpha: 1, temperature: 2, gating: "additive" }),
  }),
  expert_choice_kv_shared: tinyRecursiveConfig(
    { sharing: "middle_cycle", numRecursions: 2, blockLayers: 2 },
    {
      router: tinyRouter({ alpha: 1 }),
      kvCache: "shared",
    },
  ),
  token_choice: tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 }, {
    router: tinyTokenRouter(),
  }),
  token_choice_loss_free: tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 }, {
    router: tinyTokenRouter({
      function: "sigmoid",
      alpha: 0.5,
      temperature: 2,
      architecture: "mlp",
      balancing: "loss_free",
    }),
  }),
};
