/**
 * Floating-point operations per token: by the paper's formula, which reproduces its published step counts, and in full.
 */
import { hasUnsharedEnds, type ModelConfig, stepFractions } from "./config.ts";
import { routerTable } from "./parameters.ts";

/** Forward FLOPs of one token in a sequence. */
export interface FlopsPerToken {
  /** As the paper counts: layers only, no grouped heads, no head, no routers. */
  readonly paper: number;
  /** Layers with grouped heads, output head and routers, each of them on every token. */
  readonly full: number;
}

/** Layers that run together, and on what. */
interface Application {
  readonly layers: number;
  /** Fraction of the tokens that take part. */
  readonly fraction: number;
  /** Whether keys and values are those of the first recursion step, for all tokens, instead of its own. */
  readonly sharesKeys: boolean;
}

function applications(config: ModelConfig): Application[] {
  const { kvCache, recursion, numHiddenLayers } = config;
  if (!recursion) return [{ layers: numHiddenLayers, fraction: 1, sharesKeys: false }];
  const steps = stepFractions(config).map((fraction, r) => ({
    layers: recursion.blockLayers,
    fraction,
    sharesKeys: kvCache === "shared" && r > 0,
  }));
  return hasUnsharedEnds(recursion) ? [{ layers: 2, fraction: 1, sharesKeys: false }, ...steps] : steps;
}

/**
 * Forward FLOPs per token at a sequence length T: lin = 2 (4 C^2 + 3 C F), att = 2 T C for the causal half of both
 * products; a step with fraction c of the tokens costs c lin + c^2 att with recursion-wise caching. With shared keys and
 * values its tokens attend to all of the sequence and need no projections to keys and values: c (lin - 4 C^2 + att).
 */
export function flopsPerToken(config: ModelConfig, { tokens }: { tokens: number }): FlopsPerToken {
  const { hiddenSize: c, intermediateSize: f, numAttentionHeads: h, numKeyValueHeads: g, headDim: d } =
    config;
  const attention = 2 * tokens * h * d;
  const linear = 2 * (2 * c * h * d + 2 * c * g * d + 3 * c * f);
  const paperLinear = 2 * (4 * c * c + 3 * c * f);
  const paperAttention = 2 * tokens * c;
  let paper = 0;
  let full = 2 * config.vocabSize * c;
  for (const { layers, fraction, sharesKeys } of applications(config)) {
    const attended = sharesKeys ? 1 : fraction;
    const [paperSpared, spared] = sharesKeys ? [4 * c * c, 4 * c * g * d] : [0, 0];
    paper += layers * fraction * (paperLinear - paperSpared + attended * paperAttention);
    full += layers * fraction * (linear - spared + attended * attention);
  }
  for (const { outputs } of routerTable(config)) {
    full += config.router!.architecture === "mlp" ? 2 * (2 * c * c + 2 * c * outputs) : 2 * c * outputs;
  }
  return { paper, full };
}
