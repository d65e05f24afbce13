/** Named model shapes. */
import { ConfigError, type ModelConfig } from "./config.ts";
import { byteTokenizer } from "./text/tokenizer.ts";

const LLAMA = {
  rmsNormEps: 1e-5,
  ropeTheta: 10000,
  ropeScaling: null,
  tieWordEmbeddings: true,
  kvCache: "recursion_wise",
  extra: {},
} as const;

/** The paper's defaults: expert choice by a linear router per step, weighted gate, auxiliary loss (its appendix). */
const PAPER_ROUTER = {
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
} as const;

/** The paper's choice among token-choice routers: linear, softmax, balancing loss (its table of them). */
const TOKEN_ROUTER = {
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
} as const;

const ROUTERS: Readonly<Record<string, ModelConfig["router"]>> = {
  mor: PAPER_ROUTER,
  tok: TOKEN_ROUTER,
  rec: null,
};

/** SmolLM shapes used by the paper; `blockLayers` for N = 2, 3, 4 are those of its tables, 135m's by its issue 15. */
const PAPER_SHAPES: Record<string, { shape: Partial<ModelConfig>; layers: number; blockLayers: number[] }> = {
  "135m": {
    shape: { hiddenSize: 576, intermediateSize: 1536, numAttentionHeads: 9, numKeyValueHeads: 3 },
    layers: 30,
    blockLayers: [14, 10, 7],
  },
  "360m": {
    shape: { hiddenSize: 960, intermediateSize: 2560, numAttentionHeads: 15, numKeyValueHeads: 5 },
    layers: 32,
    blockLayers: [15, 10, 8],
  },
  "730m": {
    shape: { hiddenSize: 1536, intermediateSize: 4096, numAttentionHeads: 24, numKeyValueHeads: 8 },
    layers: 26,
    blockLayers: [12, 8, 6],
  },
  "1.7b": {
    shape: { hiddenSize: 2048, intermediateSize: 8192, numAttentionHeads: 32, numKeyValueHeads: 32 },
    layers: 24,
    blockLayers: [11, 8, 6],
  },
};

/** Models on bytes, small enough for two processor cores; `small` has 14 unrolled layers with any number of recursions. */
const BYTE_SHAPES: Record<string, { shape: Partial<ModelConfig>; layers: number; blockLayers: number[] }> = {
  small: {
    shape: { hiddenSize: 512, intermediateSize: 1536, numAttentionHeads: 8, numKeyValueHeads: 4 },
    layers: 14,
    blockLayers: [6, 4, 3],
  },
  demo: {
    shape: { hiddenSize: 160, intermediateSize: 432, numAttentionHeads: 5, numKeyValueHeads: 5, headDim: 32 },
    layers: 5,
    blockLayers: [1, 1, 1],
  },
  tiny: {
    shape: { hiddenSize: 64, intermediateSize: 176, numAttentionHeads: 2, numKeyValueHeads: 1, headDim: 32 },
    layers: 5,
    blockLayers: [1, 1, 1],
  },
};

/** Every preset's name: a shape alone is vanilla (`135m`), with N recursions `135m-mor3`, `135m-tok3` or `135m-rec3`. */
export function presetNames(): string[] {
  const variants = [
    ...Object.keys(ROUTERS).flatMap((kind) => [2, 3, 4].map((n) => `${kind}${n}`)),
    "vanilla",
  ];
  return presetShapes().flatMap((shape) => [shape, ...variants.map((variant) => `${shape}-${variant}`)]);
}

/**
 * The configuration of a preset. `small`, `demo` and `tiny` alone are MoR with three recursions; the paper's shapes alone are
 * vanilla.
 *
 * @throws ConfigError for an unknown name.
 */
export function presetConfig(name: string): ModelConfig {
  const [, shapeName, variant] = /^(.+?)(?:-((?:mor|tok|rec)[234]|vanilla))?$/.exec(name) ?? [];
  const isByte = Object.hasOwn(BYTE_SHAPES, shapeName ?? "");
  const shapes = isByte ? BYTE_SHAPES : PAPER_SHAPES;
  const preset = Object.hasOwn(shapes, shapeName ?? "") ? shapes[shapeName!] : undefined;
  if (!preset) {
    throw new ConfigError(
      `Unknown preset "${name}"; presets are ${
        presetShapes().join(", ")
      }, each with -mor2 to -mor4, -tok2 to -tok4 or -rec2 to -rec4`,
    );
  }
  const base = {
    ...LLAMA,
    vocabSize: isByte ? byteTokenizer.vocabSize : 49152,
    maxPositionEmbeddings: isByte ? 1024 : 2048,
    initializerRange: isByte ? 0.05 : 0.02,
    tokenizer: isByte ? "byte" as const : null,
    headDim: 64,
    ...preset.shape,
  };
  const kind = variant ?? (isByte ? "mor3" : "vanilla");
  if (kind === "vanilla") {
    return { ...base, numHiddenLayers: preset.layers, recursion: null, router: null } as ModelConfig;
  }
  const numRecursions = Number(kind.at(-1));
  const blockLayers = preset.blockLayers[numRecursions - 2]!;
  return {
    ...base,
    numHiddenLayers: numRecursions * blockLayers + 2,
    recursion: { sharing: "middle_cycle", numRecursions, blockLayers },
    router: ROUTERS[kind.slice(0, 3)]!,
  } as ModelConfig;
}

function presetShapes(): string[] {
  return [...Object.keys(BYTE_SHAPES), ...Object.keys(PAPER_SHAPES)];
}
