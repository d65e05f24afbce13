/**
 * The recursion: one block of layers, applied again and again to fewer and fewer tokens.
 *
 *   step r:  choose tokens -> gather their rows -> block (the same weights every time) -> gated scatter
 *
 * Tokens that a step does not choose keep their state unchanged. With expert choice every step adds its gated output;
 * with token choice the steps replace the state, and one gated addition to the first state ends the recursion. Without
 * a router every token runs every step and the block's output is the state: the recursive baseline.
 */
import type { Commands } from "../gpu/commands.ts";
import { gatherRows, gatherRowsBackward } from "../gpu/kernels/gather_rows.ts";
import { scatterRows, scatterRowsBackward } from "../gpu/kernels/scatter_rows.ts";
import type { Packing } from "../gpu/packing.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { type LayerRun, layersBackward, layersForward } from "./block.ts";
import type { Gating, ModelConfig } from "./config.ts";
import { type ExpertContext, selectBackward, selectForward, type StepRouters } from "./expert_choice.ts";
import { type CachePass, placeStepRows } from "./kv_cache.ts";
import type { LayerContext } from "./layer_buffers.ts";
import type { ModelWeights } from "./model_weights.ts";
import type { LayerViews, ParameterViews } from "./parameter_layout.ts";
import type { ExpertSelection } from "./selection.ts";
import { depthBackward, type DepthDecision, depthForward } from "./token_choice.ts";

/** The decisions of a pass, by the kind of router. */
export type Decisions =
  | { readonly kind: "none" }
  | { readonly kind: "expert_choice"; readonly selections: readonly ExpertSelection[] }
  | {
    readonly kind: "token_choice";
    readonly decision: DepthDecision;
    /** (M, C): the state after the last gated addition. */
    readonly exit: Tensor;
    /** (M, C): gradient of the state inside the recursion. */
    readonly gradDeep: Tensor;
  };

/** One recursion step for the tokens of `packing`. */
export interface RecursionStep {
  readonly packing: Packing;
  readonly block: LayerRun;
  /** (packed rows, C): the chosen tokens' states; null where all are chosen. */
  readonly gathered: Tensor | null;
  /** (state rows, C): the state after the step; null where it is the block's output. */
  readonly stateAfter: Tensor | null;
}

/** Everything that the recursion of a pass works with. */
export interface Recursion {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly layers: LayerContext;
  readonly decisions: Decisions;
  readonly steps: readonly RecursionStep[];
  readonly expert: ExpertContext;
  readonly cache: CachePass | null;
}

function routersOf({ routers, auxiliaryRouters }: ModelWeights, step: number): StepRouters {
  return { main: routers[step]!, auxiliary: auxiliaryRouters[step] ?? null };
}

/** How profiles name a step. */
function stepName(index: number): string {
  return `recursion ${index + 1}`;
}

/** Records all steps on the state (state rows, C) and returns the final state. */
export function recursionForward(commands: Commands, recursion: Recursion, state: Tensor): Tensor {
  const { config, weights, layers, decisions, steps, expert } = recursion;
  if (decisions.kind === "none") {
    return steps.reduce((x, { block: run, packing }, r) => {
      commands.mark(stepName(r));
      return layersForward(commands, { x, run }, { context: layers, packing });
    }, state);
  }
  const { gating } = config.router!;
  if (decisions.kind === "expert_choice") {
    return steps.reduce((before, step, r) => {
      const selection = decisions.selections[r]!;
      commands.mark(stepName(r));
      selectForward(commands, { selection, state: before, routers: routersOf(weights, r) }, expert);
      const { gates } = selection;
      return stepForward(commands, { state: before, step, gates }, { recursion, index: r, gating });
    }, state);
  }
  const { decision, exit } = decisions;
  const router = { weights: weights.routers[0]!, bias: weights.routerBias };
  const byPosition = expert.shape.routing === "causal";
  commands.mark("router");
  depthForward(commands, { decision, state, router }, { config, seed: expert.seed, byPosition });
  const deep = steps.reduce((before, step, r) => {
    // Where the output replaces the state, the gates are not looked at.
    const { gates } = decision;
    commands.mark(stepName(r));
    return stepForward(commands, { state: before, step, gates }, { recursion, index: r, gating: "replace" });
  }, state);
  commands.mark("router");
  const { full: packing, gates } = decision;
  scatterRows(commands, { x: state, z: deep, gates, packing, out: exit }, { gating });
  return exit;
}

function stepForward(
  commands: Commands,
  { state, step: { packing, gathered, block, stateAfter }, gates }: {
    state: Tensor;
    step: RecursionStep;
    gates: Tensor;
  },
  { recursion: { layers, cache }, index, gating }: { recursion: Recursion; index: number; gating: Gating },
): Tensor {
  if (cache) placeStepRows(commands, cache, { packing, step: index });
  if (gathered) gatherRows(commands, { x: state, packing, out: gathered });
  const z = layersForward(commands, { x: gathered ?? state, run: block }, { context: layers, packing });
  scatterRows(commands, { x: state, z, gates, packing, out: stateAfter! }, { gating });
  return stateAfter!;
}

/** Where the gradients of a recursion go: parameters' are added to. */
export interface RecursionGradients {
  readonly gradients: ParameterViews;
  /** The gradients of each step's layers. */
  readonly blocks: readonly (readonly LayerViews[])[];
  /** (state rows, C): turns from the gradient of the final state into that of the first. */
  readonly gradState: Tensor;
  /** (state rows, C) scratch: the gradient inside the block. */
  readonly gradPacked: Tensor;
}

/** Records the reverse of `recursionForward` on its first state; see `RecursionGradients`. */
export function recursionBackward(
  commands: Commands,
  recursion: Recursion,
  { state, lossScale, ...grads }: RecursionGradients & { state: Tensor; lossScale: number },
): void {
  const { config, weights, layers, decisions, steps, expert } = recursion;
  const { gradients, blocks, gradState } = grads;
  const before = (r: number): Tensor => {
    const previous = steps[r - 1];
    return previous ? previous.stateAfter ?? previous.block.activations.at(-1)!.out : state;
  };
  if (decisions.kind === "none") {
    for (let r = steps.length - 1; r >= 0; r--) {
      const { block: run, packing } = steps[r]!;
      commands.mark(`${stepName(r)}, backward`);
      layersBackward(commands, { x: before(r), run, gradients: blocks[r]!, gradState }, {
        context: layers,
        packing,
      });
    }
    return;
  }
  const { gating } = config.router!;
  if (decisions.kind === "expert_choice") {
    for (let r = steps.length - 1; r >= 0; r--) {
      const selection = decisions.selections[r]!;
      commands.mark(`${stepName(r)}, backward`);
      stepBackward(commands, { ...grads, state: before(r), ...selection }, { recursion, index: r, gating });
      selectBackward(commands, {
        selection,
        state: before(r),
        routers: routersOf(weights, r),
        gradients: routersOf(gradients, r),
        gradState,
      }, expert);
    }
    return;
  }
  const { decision, gradDeep } = decisions;
  commands.mark("router, backward");
  const { full: packing, gates, gradGates } = decision;
  scatterRowsBackward(commands, {
    x: state,
    z: before(steps.length),
    gates,
    packing,
    gradState,
    gradZ: gradDeep,
    gradGates,
  }, { gating });
  for (let r = steps.length - 1; r >= 0; r--) {
    commands.mark(`${stepName(r)}, backward`);
    stepBackward(commands, {
      ...grads,
      gradState: gradDeep,
      state: before(r),
      gates,
      gradGates: decision.unusedGradGates,
    }, { recursion, index: r, gating: "replace" });
  }
  commands.mark("router, backward");
  gatherRowsBackward(commands, { gradOut: gradDeep, packing, gradX: gradState });
  depthBackward(commands, {
    decision,
    state,
    weights: weights.routers[0]!,
    gradients: gradients.routers[0]!,
    gradState,
  }, { config, lossScale });
}

function stepBackward(
  commands: Commands,
  { state, gates, gradGates, gradState, gradPacked, blocks }: RecursionGradients & {
    state: Tensor;
    gates: Tensor;
    gradGates: Tensor;
  },
  { recursion: { steps, layers }, index, gating }: { recursion: Recursion; index: number; gating: Gating },
): void {
  const { packing, gathered, block: run } = steps[index]!;
  const z = run.activations.at(-1)!.out;
  scatterRowsBackward(commands, { x: state, z, gates, packing, gradState, gradZ: gradPacked, gradGates }, {
    gating,
  });
  layersBackward(commands, {
    x: gathered ?? state,
    run,
    gradients: blocks[index]!,
    gradState: gradPacked,
  }, { context: layers, packing });
  gatherRowsBackward(commands, { gradOut: gradPacked, packing, gradX: gradState });
}
