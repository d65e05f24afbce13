/**
 * Routing of rows that are at different recursion steps. With expert choice all steps' routers score every row, as one
 * router with an output for each step, and each row looks at the score of its own next step; with token choice a row is
 * routed when it enters.
 */
import { Commands, submit } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { randomScore } from "../../gpu/kernels/random_score.ts";
import { enterAll, enterByDepth, recurByDepth, routeByScore } from "../../gpu/kernels/slot_route.ts";
import type { Allocator } from "../../gpu/memory.ts";
import type { Packing } from "../../gpu/packing.ts";
import { createTensor, type Tensor, tensorFrom, viewTensor } from "../../gpu/tensor.ts";
import type { ExpertChoiceConfig, ModelConfig } from "../config.ts";
import { randomThreshold } from "../expert_choice.ts";
import type { ModelWeights, RouterWeights } from "../model_weights.ts";
import { allocateRouter, type RouterActivations, routerForward } from "../router.ts";
import { allocateDepthDecision, type DepthDecision, depthScores } from "../token_choice.ts";
import type { BatchState } from "./batch_state.ts";

/** What rows are scored with. */
interface Scores {
  /** Null for the random control. */
  readonly weights: RouterWeights | null;
  readonly activations: RouterActivations | null;
  /** (rows, R) */
  readonly logits: Tensor;
}

/** The decisions of a batch, by the kind of router. */
export type BatchRouter =
  | { readonly kind: "none"; readonly steps: number }
  | { readonly kind: "token_choice"; readonly decision: DepthDecision; readonly seed: Tensor }
  | {
    readonly kind: "expert_choice";
    readonly scores: Scores;
    /** Of the routers that decide in place of the others, if there are any. */
    readonly auxiliary: Scores | null;
    /** (R): what a token's score must exceed for each step. */
    readonly thresholds: Tensor;
    readonly seed: Tensor;
  };

/** The score above which a token runs a step that all tokens run. */
const ALWAYS = -3.4e38;

export function allocateBatchRouter(
  device: GpuDevice,
  allocator: Allocator,
  { config, weights, packing, steps }: {
    config: ModelConfig;
    weights: ModelWeights;
    packing: Packing;
    steps: number;
  },
): BatchRouter {
  const { router } = config;
  if (!router) return { kind: "none", steps };
  const seed = createTensor(allocator, { shape: [1], dtype: "u32", label: "routing seed" });
  if (router.kind === "token_choice") {
    const decision = allocateDepthDecision(allocator, { config, full: packing, backward: false });
    return { kind: router.kind, decision, seed };
  }
  const scores = (routers: readonly RouterWeights[]): Scores => {
    const stacked = router.random ? null : stackRouters(device, allocator, routers);
    return {
      weights: stacked,
      activations: allocateRouter(allocator, {
        router,
        hiddenSize: config.hiddenSize,
        hiddenWidth: stacked?.hidden?.shape[0] ?? 0,
        packing,
        backward: false,
      }),
      logits: createTensor(allocator, { shape: [packing.rows.maximum, steps], label: "router logits" }),
    };
  };
  return {
    kind: router.kind,
    scores: scores(weights.routers),
    auxiliary: router.auxiliary === "router" && !router.random ? scores(weights.auxiliaryRouters) : null,
    thresholds: tensorFrom(allocator, { data: stepThresholds(config, router), label: "thresholds" }),
    seed,
  };
}

/** What decides each step causally: see `selectForward`. */
function stepThresholds(
  config: ModelConfig,
  { random, capacities }: ExpertChoiceConfig,
): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: config.recursion!.numRecursions }, (_, step) => {
    if (step === 0 && (capacities?.[0] ?? 1) === 1) return ALWAYS;
    return random ? randomThreshold(config, step) : 0;
  });
}

/** Routers of one output each as one router with an output for each of them. */
function stackRouters(
  device: GpuDevice,
  allocator: Allocator,
  routers: readonly RouterWeights[],
): RouterWeights {
  const count = routers.length;
  const { hidden, output } = routers[0]!;
  const width = output.shape.at(-1)!;
  const [hiddenRows, inputs] = (hidden?.shape ?? [0, 0]) as [number, number];
  const columns = hidden ? count * width : width;
  const stacked = {
    hidden: hidden &&
      createTensor(allocator, { shape: [count * hiddenRows, inputs], label: "routers' hidden layer" }),
    // Each output reads its own router's part of the hidden layer, zeros weigh the others.
    output: createTensor(allocator, { shape: [count, columns], label: "routers" }),
  };
  const commands = new Commands(device, "routers");
  routers.forEach((router, r) => {
    const start = hidden ? r * columns + r * width : r * width;
    commands.copy(router.output, viewTensor(stacked.output, { start, shape: [1, width] }));
    if (!stacked.hidden) return;
    const shape = [hiddenRows, inputs];
    commands.copy(router.hidden!, viewTensor(stacked.hidden, { start: r * hiddenRows * inputs, shape }));
  });
  submit(device, [commands]);
  commands.destroy();
  return stacked;
}

/** Rows to route, and what is known of their slots. */
interface Routed {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
  readonly router: BatchRouter;
  readonly state: BatchState;
  readonly packing: Packing;
}

/** Records where rows go whose tokens have entered: into the recursion, or past it. */
export function routeEntered(commands: Commands, routed: Routed): void {
  const { config, weights, router, state: { slots, gates, states: x }, packing } = routed;
  if (router.kind === "none") {
    enterAll(commands, { slots, packing }, { steps: router.steps });
    return;
  }
  if (router.kind === "expert_choice") {
    routeScored(commands, { ...routed, router }, { isEntry: true });
    return;
  }
  const { decision, seed } = router;
  const run = { weights: weights.routers[0]!, bias: weights.routerBias };
  depthScores(commands, { decision, state: x, router: run }, { config, seed, byPosition: true });
  const { depths, gates: rowGates } = decision;
  enterByDepth(commands, { slots, packing, depths, rowGates, gates });
}

/** Records where rows go that have run a recursion step: into the next, or out. */
export function routeRecurred(commands: Commands, routed: Routed): void {
  const { router, state: { slots }, packing } = routed;
  if (router.kind === "expert_choice") routeScored(commands, { ...routed, router }, { isEntry: false });
  else recurByDepth(commands, { slots, packing });
}

function routeScored(
  commands: Commands,
  { config, router: { scores, auxiliary, thresholds, seed }, state, packing }: Routed & {
    router: BatchRouter & { kind: "expert_choice" };
  },
  { isEntry }: { isEntry: boolean },
): void {
  const router = config.router as ExpertChoiceConfig;
  const { slots, gates, states: x } = state;
  for (const { weights, activations, logits } of auxiliary ? [scores, auxiliary] : [scores]) {
    if (weights) routerForward(commands, { x, run: { weights, activations, packing }, logits }, router);
    else {randomScore(commands, { logits, packing, seed }, {
        stream: 0,
        outputs: logits.shape[1]!,
        byPosition: true,
      });}
  }
  const { logits } = scores;
  const deciding = auxiliary?.logits ?? logits;
  routeByScore(commands, { slots, packing, logits, deciding, thresholds, gates }, {
    isEntry,
    alpha: router.alpha,
    function: router.random ? "none" : router.function,
  });
}
