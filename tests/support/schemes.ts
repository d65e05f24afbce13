/** Models of every scheme: each kind of router, sharing and cache, with every gate and score, under several options. */
import type {
  ExpertChoiceConfig,
  ModelConfig,
  RecursionConfig,
  TokenChoiceConfig,
} from "../../model/config.ts";
import {
  tinyConfig,
  tinyRecursiveConfig,
  tinyRopeScaling,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";

const middleCycle: RecursionConfig = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 };
const cycle: RecursionConfig = { sharing: "cycle", numRecursions: 2, blockLayers: 2 };
const sequence: RecursionConfig = { sharing: "sequence", numRecursions: 2, blockLayers: 3 };

const shared = { kvCache: "shared" } as const;
const ownHead = { tieWordEmbeddings: false } as const;

/** Where a router's recursion repeats: in a middle_cycle unless told. */
interface Place {
  readonly isCycle?: boolean;
  readonly isShared?: boolean;
}

const losses = { auxiliary: "loss", auxiliaryCoefficient: 0.1 } as const;
const secondRouter = { auxiliary: "router", auxiliaryCoefficient: 0.1 } as const;

/** Every gating with every function, the other options under several of them. */
const expertChoice: readonly (Partial<ExpertChoiceConfig> & Place)[] = [
  { gating: "weighted", function: "sigmoid" },
  { gating: "weighted", function: "tanh", alpha: 1, temperature: 2, ...losses, zCoefficient: 0.05 },
  { gating: "weighted", function: "none", alpha: 1, capacities: [0.9, 0.3], ...losses, isCycle: true },
  {
    gating: "additive",
    function: "sigmoid",
    temperature: 2,
    capacities: [0.9, 0.3],
    ...losses,
    isCycle: true,
  },
  { gating: "additive", function: "tanh", alpha: 1, ...losses, zCoefficient: 0.05 },
  { gating: "additive", function: "none", alpha: 1, temperature: 2, auxiliary: "none" },
  { gating: "replace", function: "sigmoid", ...losses },
  { gating: "replace", function: "tanh", alpha: 1, auxiliary: "none", zCoefficient: 0.05, isCycle: true },
  { gating: "replace", function: "none", alpha: 1, capacities: [0.8, 0.8, 0.05], ...losses },
  { gating: "delta", function: "sigmoid", temperature: 2, capacities: [0.8, 0.8, 0.05], auxiliary: "none" },
  { gating: "delta", function: "tanh", alpha: 1, ...losses, zCoefficient: 0.05 },
  { gating: "delta", function: "none", alpha: 1, temperature: 2, ...losses, isCycle: true },
  { architecture: "mlp", function: "sigmoid", alpha: 1, temperature: 2, ...losses, zCoefficient: 0.05 },
  { architecture: "mlp", function: "tanh", alpha: 1, gating: "delta", ...losses, isCycle: true },
  { ...secondRouter, function: "sigmoid", alpha: 1, zCoefficient: 0.05 },
  { ...secondRouter, function: "none", alpha: 1, capacities: [0.9, 0.3], temperature: 2, isCycle: true },
  { ...secondRouter, architecture: "mlp", function: "tanh", alpha: 1, temperature: 2, zCoefficient: 0.05 },
  { isShared: true, function: "sigmoid", alpha: 1, ...losses },
  { isShared: true, function: "tanh", alpha: 1, gating: "delta", capacities: [1, 0.5], isCycle: true },
  { isShared: true, architecture: "mlp", ...secondRouter, function: "none", alpha: 1, gating: "additive" },
];

/** Every gating with both functions, the other options under several of them. */
const tokenChoice: readonly (Partial<TokenChoiceConfig> & Place)[] = [
  { gating: "weighted", function: "softmax", zCoefficient: 0.05 },
  { gating: "weighted", function: "sigmoid", alpha: 0.5, balancing: "loss_free", isCycle: true },
  { gating: "additive", function: "softmax", balancing: "none", temperature: 2, isCycle: true },
  { gating: "additive", function: "sigmoid", zCoefficient: 0.05 },
  { gating: "replace", function: "softmax", balancing: "loss_free", temperature: 2 },
  { gating: "replace", function: "sigmoid", balancing: "none", zCoefficient: 0.05, isCycle: true },
  { gating: "delta", function: "softmax", alpha: 0.5, zCoefficient: 0.05 },
  { gating: "delta", function: "sigmoid", balancing: "none", temperature: 2 },
  { architecture: "mlp", function: "softmax", temperature: 2, zCoefficient: 0.05 },
  { architecture: "mlp", function: "sigmoid", gating: "delta", balancing: "loss_free", isCycle: true },
  { isShared: true, function: "softmax", zCoefficient: 0.05 },
  { isShared: true, function: "sigmoid", gating: "delta", balancing: "loss_free", isCycle: true },
  { isShared: true, architecture: "mlp", function: "softmax", gating: "replace", balancing: "none" },
];

function recursionOf({ isCycle = false }: Place): RecursionConfig {
  return isCycle ? cycle : middleCycle;
}

/** Routed models by their options, every third with a head of its own. */
function routed<Options extends Place>(
  kind: string,
  { choices, router }: {
    choices: readonly Options[];
    router: (changes: Omit<Options, keyof Place>) => ModelConfig["router"];
  },
): Record<string, ModelConfig> {
  return Object.fromEntries(choices.map(({ isCycle, isShared, ...options }, i) => {
    const title = [kind, isCycle && "cycle", isShared && "shared keys", ...entries(options)];
    const changes = { router: router(options), ...(isShared && shared), ...(i % 3 === 1 && ownHead) };
    const config = tinyRecursiveConfig(recursionOf({ isCycle: isCycle === true }), changes);
    return [title.filter(Boolean).join(", "), config];
  }));
}

function entries(options: object): string[] {
  return Object.entries(options).map(([name, value]) => `${name} ${value}`);
}

/** All of them, by name. */
export function schemes(): Record<string, ModelConfig> {
  return {
    "vanilla with a head of its own": tinyConfig(ownHead),
    "vanilla with scaled RoPE": tinyConfig({ ropeScaling: tinyRopeScaling }),
    "recursive cycle": tinyRecursiveConfig(cycle),
    "recursive middle_cycle with a head of its own": tinyRecursiveConfig(middleCycle, ownHead),
    "recursive sequence": tinyRecursiveConfig(sequence),
    "recursive middle_sequence": tinyRecursiveConfig({ ...sequence, sharing: "middle_sequence" }),
    "recursive cycle, shared keys": tinyRecursiveConfig(cycle, shared),
    "recursive middle_cycle, shared keys": tinyRecursiveConfig(middleCycle, shared),
    ...routed("expert choice", { choices: expertChoice, router: tinyRouter }),
    ...routed("token choice", { choices: tokenChoice, router: tinyTokenRouter }),
  };
}
