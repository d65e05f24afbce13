/** Models of every scheme that decodes causally, with both kinds of cache. */
import type { ModelConfig } from "../../model/config.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 2 } as const;
export const cycle = { ...middleCycle, sharing: "cycle" } as const;

const expert = { router: tinyRouter({ alpha: 1 }) };
const token = { router: tinyTokenRouter() };
const shared = { kvCache: "shared" } as const;

/** Configurations by name. */
export const causalSchemes: Readonly<Record<string, ModelConfig>> = {
  "vanilla": tinyConfig(),
  "recursive": tinyRecursiveConfig(middleCycle),
  "recursive, shared": tinyRecursiveConfig(middleCycle, shared),
  "recursive sequence": tinyRecursiveConfig({ ...middleCycle, sharing: "sequence" }),
  "expert choice": tinyRecursiveConfig(middleCycle, expert),
  "expert choice, shared": tinyRecursiveConfig(middleCycle, { ...expert, ...shared }),
  "expert choice in a cycle, steps may be empty": tinyRecursiveConfig(cycle, {
    router: tinyRouter({ alpha: 1, capacities: [0.5, 0.4, 0.3] }),
  }),
  "expert choice by an auxiliary mlp router": tinyRecursiveConfig(middleCycle, {
    router: tinyRouter({ alpha: 1, auxiliary: "router", architecture: "mlp" }),
  }),
  "expert choice by chance": tinyRecursiveConfig(middleCycle, { router: tinyRouter({ random: true }) }),
  "token choice": tinyRecursiveConfig(middleCycle, token),
  "token choice, shared": tinyRecursiveConfig(middleCycle, { ...token, ...shared }),
  "token choice by chance in a cycle": tinyRecursiveConfig(cycle, {
    router: tinyTokenRouter({ random: true }),
  }),
};
