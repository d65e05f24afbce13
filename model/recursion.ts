/**
 * The recursion: one block of layers, applied again and again to fewer and fewer tokens.
 *
 *   step r:  choose tokens -> gather their rows -> block (the same weights every time) -> gated scatter
 *
 * Tokens that a step does not choose keep their state unchanged. Without a router every token runs every step and the
 * block's output simply replaces the state: the recursive baseline.
 */
import type { Commands } from "../gpu/commands.ts";
import { gatherRows, gatherRowsBackward } from "../gpu/kernels/gather_rows.ts";
import { scatterRows, scatterRowsBackward } from "../gpu/kernels/scatter_rows.ts";
import type { Packing } from "../gpu/packing.ts";
import type { Tensor } from "../gpu/tensor.ts";
import type { ExpertChoiceConfig, RecursionConfig } from "./config.ts";
import { selectBackward, selectForward, type Selection, selectLosses } from "./expert_choice.ts";
import { type LayerActivations, layerBackward, type LayerContext, layerForward } from "./layer.ts";
import type { LayerViews } from "./parameters.ts";

/** Layers applied one after another, with what each leaves for backward. */
export interface LayerRun {
  readonly weights: readonly LayerViews[];
  readonly activations: readonly LayerActivations[];
}

/** Buffers of one recursion step of Mixture-of-Recursions. */
export interface RecursionStep {
  readonly selection: Selection;
  /** (packed rows, C): the chosen tokens' states. */
  readonly gathered: Tensor;
  readonly block: LayerRun;
  /** (B * T, C): the state after the step. */
  readonly stateAfter: Tensor;
}

/** Records layers on x for the packed rows and returns the last one's output. */
export function layersForward(
  commands: Commands,
  { x, run }: { x: Tensor; run: LayerRun },
  { context, packing }: { context: LayerContext; packing: Packing },
): Tensor {
  return run.weights.reduce((input, weights, i) => {
    const activations = run.activations[i]!;
    layerForward(commands, { x: input, weights, activations }, { context, packing });
    return activations.out;
  }, x);
}

/** Records the reverse of `layersForward`; gradState turns from the gradient of the output to that of x. */
export function layersBackward(
  commands: Commands,
  { x, run, gradients, gradState }: {
    x: Tensor;
    run: LayerRun;
    gradients: readonly LayerViews[];
    gradState: Tensor;
  },
  { context, packing }: { context: LayerContext; packing: Packing },
): void {
  for (let i = run.weights.length - 1; i >= 0; i--) {
    layerBackward(commands, {
      x: i > 0 ? run.activations[i - 1]!.out : x,
      weights: run.weights[i]!,
      gradients: gradients[i]!,
      activations: run.activations[i]!,
      gradState,
    }, { context, packing });
  }
}

/** What the recursion of a Mixture-of-Recursions model needs besides its buffers. */
export interface RecursionContext {
  readonly layers: LayerContext;
  readonly router: ExpertChoiceConfig;
  readonly recursion: RecursionConfig;
  readonly sequences: number;
  /** (1) u32: seed of the random router. */
  readonly seed: Tensor;
}

/**
 * Records all steps on the state (B * T, C) and returns the final state.
 *
 * @param lossScale Records the routers' losses and their gradients, times this; null leaves them out.
 */
export function recursionForward(
  commands: Commands,
  { state, steps, routers }: { state: Tensor; steps: readonly RecursionStep[]; routers: readonly Tensor[] },
  { context, lossScale }: { context: RecursionContext; lossScale: number | null },
): Tensor {
  const { layers, router } = context;
  return steps.reduce((before, { selection, gathered, block, stateAfter }, r) => {
    const { packing } = selection;
    selectForward(commands, { selection, state: before, weight: routers[r]!, seed: context.seed }, context);
    if (lossScale !== null) selectLosses(commands, selection, { router, scale: lossScale });
    gatherRows(commands, { x: before, packing, out: gathered });
    const z = layersForward(commands, { x: gathered, run: block }, { context: layers, packing });
    scatterRows(commands, { x: before, z, gates: selection.gates, packing, out: stateAfter }, {
      gating: router.gating,
    });
    return stateAfter;
  }, state);
}

/** Records the reverse of `recursionForward`; gradState (B * T, C) turns into the gradient of the first state. */
export function recursionBackward(
  commands: Commands,
  { state, steps, routers, gradRouters, gradients, gradState, gradPacked }: {
    state: Tensor;
    steps: readonly RecursionStep[];
    routers: readonly Tensor[];
    gradRouters: readonly Tensor[];
    gradients: readonly LayerViews[];
    gradState: Tensor;
    /** (B * T, C) scratch: the gradient inside the block. */
    gradPacked: Tensor;
  },
  { context: { layers, router } }: { context: RecursionContext },
): void {
  for (let r = steps.length - 1; r >= 0; r--) {
    const { selection, gathered, block } = steps[r]!;
    const { packing, gates, gradGates } = selection;
    const before = r > 0 ? steps[r - 1]!.stateAfter : state;
    const z = block.activations.at(-1)!.out;
    scatterRowsBackward(commands, {
      x: before,
      z,
      gates,
      packing,
      gradState,
      gradZ: gradPacked,
      gradGates,
    }, {
      gating: router.gating,
    });
    layersBackward(commands, { x: gathered, run: block, gradients, gradState: gradPacked }, {
      context: layers,
      packing,
    });
    gatherRowsBackward(commands, { gradOut: gradPacked, packing, gradX: gradState });
    selectBackward(
      commands,
      { selection, state: before, weight: routers[r]!, gradWeight: gradRouters[r]!, gradState },
      { router },
    );
  }
}
