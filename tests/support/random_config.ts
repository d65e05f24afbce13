/** Random small models: any router, sharing, cache, gate and head shape that can go together. */
import type {
  ExpertChoiceConfig,
  Gating,
  ModelConfig,
  RecursionConfig,
  RouterConfig,
  TokenChoiceConfig,
} from "../../model/config.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";
import type { Random } from "./random.ts";

/** Sizes that pipelines are compiled for: a few, because each compilation takes longer than a model runs. */
const SHAPES = [
  {
    hiddenSize: 8,
    intermediateSize: 12,
    numAttentionHeads: 2,
    numKeyValueHeads: 1,
    headDim: 4,
    vocabSize: 19,
  },
  {
    hiddenSize: 20,
    intermediateSize: 16,
    numAttentionHeads: 3,
    numKeyValueHeads: 3,
    headDim: 8,
    vocabSize: 33,
  },
  {
    hiddenSize: 16,
    intermediateSize: 24,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    headDim: 12,
    vocabSize: 40,
  },
] as const;

function pick<T>(random: Random, choices: readonly T[]): T {
  return choices[random.integer(choices.length)]!;
}

function isLucky(random: Random, probability: number): boolean {
  return random.uniform() < probability;
}

/** Non-increasing fractions, the first 1 where every token must run the first step. */
function drawCapacities(
  random: Random,
  { numRecursions, startsFull }: { numRecursions: number; startsFull: boolean },
): number[] | null {
  if (isLucky(random, 0.5)) return null;
  let capacity = startsFull || isLucky(random, 0.5) ? 1 : 0.4 + 0.6 * random.uniform();
  return Array.from({ length: numRecursions }, (_, r) => {
    if (r > 0) capacity *= 0.5 + 0.5 * random.uniform();
    return capacity;
  });
}

/** What both kinds of router have. */
function drawCommon(
  random: Random,
): { alpha: number; temperature: number; gating: Gating; architecture: "linear" | "mlp" } {
  return {
    alpha: pick(random, [0.1, 0.5, 1]),
    temperature: pick(random, [1, 1, 2]),
    gating: pick(random, ["weighted", "weighted", "additive", "replace", "delta"] as const),
    architecture: pick(random, ["linear", "linear", "mlp"] as const),
  };
}

function drawExpertChoice(
  random: Random,
  settings: { numRecursions: number; startsFull: boolean },
): ExpertChoiceConfig {
  return tinyRouter({
    ...drawCommon(random),
    capacities: drawCapacities(random, settings),
    function: pick(random, ["sigmoid", "sigmoid", "tanh", "none"] as const),
    auxiliary: pick(random, ["loss", "loss", "router", "none"] as const),
  });
}

function drawTokenChoice(random: Random): TokenChoiceConfig {
  return tinyTokenRouter({
    ...drawCommon(random),
    function: pick(random, ["softmax", "sigmoid"] as const),
    balancing: pick(random, ["loss", "loss_free", "none"] as const),
  });
}

/** A configuration from all that there are; one in twelve is vanilla. */
export function randomConfig(random: Random): ModelConfig {
  const changes = { ...pick(random, SHAPES), tieWordEmbeddings: isLucky(random, 0.7) };
  if (isLucky(random, 1 / 12)) return tinyConfig({ ...changes, numHiddenLayers: 1 + random.integer(3) });
  const kind = pick(
    random,
    ["none", "expert_choice", "expert_choice", "token_choice", "token_choice"] as const,
  );
  const kvCache = pick(random, ["recursion_wise", "shared"] as const);
  const isCycle = kind !== "none" || kvCache === "shared" || isLucky(random, 0.5);
  const recursion: RecursionConfig = {
    sharing: pick(
      random,
      isCycle ? ["cycle", "middle_cycle"] as const : ["sequence", "middle_sequence"] as const,
    ),
    numRecursions: 1 + random.integer(4),
    blockLayers: 1 + random.integer(2),
  };
  const { numRecursions } = recursion;
  const router: RouterConfig | null = kind === "none"
    ? null
    : kind === "token_choice"
    ? drawTokenChoice(random)
    : drawExpertChoice(random, { numRecursions, startsFull: kvCache === "shared" });
  return tinyRecursiveConfig(recursion, { ...changes, router, kvCache });
}
