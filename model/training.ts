/** The buffers and programs of a training run, and one optimizer step with them. */
import { Commands, submit } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { groupByToken } from "../gpu/kernels/embedding.ts";
import { type Allocator, type MemoryLedger, planAllocator } from "../gpu/memory.ts";
import { MemoryError } from "../gpu/errors.ts";
import { readTensor, readTensors } from "../gpu/readback.ts";
import { writeTensor } from "../gpu/tensor.ts";
import { capacityWarmup, type ModelConfig } from "./config.ts";
import type { Batch } from "./text/dataset.ts";
import { auxiliaryCoefficient, zCoefficient } from "./expert_choice.ts";
import type { ActivationDtype } from "./layer_buffers.ts";
import {
  allocateOptimizer,
  type OptimizerSettings,
  type OptimizerState,
  optimizerUpdate,
  writeStep,
} from "./optimizer.ts";
import { ParameterLayout, type ParameterViews } from "./parameter_layout.ts";
import { hash } from "./random.ts";
import { healthTensors, type RouterHealth, routerHealth } from "./router_health.ts";
import { writeKept } from "./selection.ts";
import { balancingCoefficient, depthBiasUpdate, depthZCoefficient } from "./token_choice.ts";
import { transformerBackward, transformerForward, transformerLosses } from "./transformer.ts";
import { allocateWorkspace, LOSS_SLOTS, type Workspace } from "./workspace.ts";

/** Sizes of a step. */
export interface StepShape {
  readonly batchSize: number;
  readonly sequenceLength: number;
  /** Batches whose gradients are added before an update. */
  readonly gradientAccumulation: number;
}

/** Updates at a run's start that route otherwise; 0 is none. */
export interface RouterWarmup {
  /** Expert choice: capacities come down from 1 over these steps (paper, appendix). */
  readonly capacity: number;
  /** Token choice: every token runs all recursions, and the balancing bias stays 0, for these steps. */
  readonly balancing: number;
}

export const NO_WARMUP: RouterWarmup = { capacity: 0, balancing: 0 };

/** All GPU memory of a run besides settings and staging. */
export interface TrainingBuffers {
  readonly layout: ParameterLayout;
  readonly weights: ParameterViews;
  readonly gradients: ParameterViews;
  readonly optimizer: OptimizerState;
  readonly workspace: Workspace;
  /** For held-out loss by causal routing; null when the run never evaluates. */
  readonly evaluation: Workspace | null;
}

/** Loss terms by name: means over tokens, or over candidates of expert choice; nats, before their coefficients. */
export interface LossTerms {
  readonly ce: number;
  /** Expert choice. */
  readonly auxiliary: number | null;
  /** Token choice. */
  readonly balancing: number | null;
  readonly z: number | null;
  /** What is differentiated: ce + coefficient * each other term. */
  readonly total: number;
}

/** Most rows (B * T) whose index tables are worth building on the host before memory is checked. */
const MAX_ROWS = 2 ** 26;

/**
 * @param recompute Keep only the outputs of layers, and run each again for its gradients, which are the same in every
 * bit where activations are f32; not unless told.
 * @param activationDtype How what layers keep for their gradients is stored; f32 unless told. With f16 all arithmetic,
 * gradients, weights and moments stay f32, so that no gradient can be too small for its format and losses need no scale;
 * an activation beyond 65504 makes the gradient infinite or NaN.
 * @param logitRows Most rows that have logits at once; see `WorkspaceShape`.
 * @throws MemoryError when it does not fit the allocator's budget or limits.
 */
export function allocateTraining(
  device: Allocator,
  {
    config,
    shape,
    warmup = NO_WARMUP,
    recompute = false,
    activationDtype = "f32",
    evaluationSequences,
    logitRows,
  }: {
    config: ModelConfig;
    shape: StepShape;
    warmup?: RouterWarmup;
    recompute?: boolean;
    activationDtype?: ActivationDtype;
    evaluationSequences: number;
    logitRows?: number | undefined;
  },
): TrainingBuffers {
  const { batchSize: sequences, sequenceLength: tokens } = shape;
  if (sequences * tokens > MAX_ROWS) {
    throw new MemoryError(
      `Cannot train on ${sequences} sequences of ${tokens} tokens at once, at most ${MAX_ROWS} tokens; ` +
        "lower --batch-size or --sequence-length",
    );
  }
  const layout = new ParameterLayout(config);
  return {
    layout,
    weights: layout.allocate(device, "weights"),
    gradients: layout.allocate(device, "gradients"),
    optimizer: allocateOptimizer(device, layout),
    workspace: allocateWorkspace(device, {
      config,
      shape: {
        lengths: new Array<number>(sequences).fill(tokens),
        routing: "top-k",
        backward: true,
        recompute,
        activationDtype,
        head: "losses",
        logitRows,
        movingCapacity: warmup.capacity > 0,
      },
    }),
    evaluation: evaluationSequences === 0 ? null : allocateWorkspace(device, {
      config,
      shape: {
        lengths: new Array<number>(evaluationSequences).fill(tokens),
        routing: "causal",
        backward: false,
        head: "losses",
        logitRows,
      },
    }),
  };
}

/** The GPU memory that `allocateTraining` would take, without taking it. */
export function trainingMemory(options: Parameters<typeof allocateTraining>[1]): MemoryLedger {
  const plan = planAllocator();
  allocateTraining(plan, options);
  return plan.memory;
}

/** What one step did. */
export interface StepResult {
  readonly losses: LossTerms;
  /** Before clipping. */
  readonly gradNorm: number;
  /** Null without a router. */
  readonly health: RouterHealth | null;
}

/** Recorded programs over the buffers. */
export class TrainingPrograms {
  readonly device: GpuDevice;
  readonly buffers: TrainingBuffers;
  readonly #config: ModelConfig;
  readonly #settings: OptimizerSettings;
  readonly #warmup: RouterWarmup;
  /** Clears what a step adds up. */
  readonly begin: Commands;
  /** Forward and backward of one batch. */
  readonly batch: Commands;
  readonly update: Commands;

  constructor(
    device: GpuDevice,
    { config, shape, buffers, settings, warmup = NO_WARMUP }: {
      config: ModelConfig;
      shape: StepShape;
      buffers: TrainingBuffers;
      settings: OptimizerSettings;
      warmup?: RouterWarmup;
    },
  ) {
    this.device = device;
    this.buffers = buffers;
    this.#config = config;
    this.#settings = settings;
    this.#warmup = warmup;
    const { layout, weights, gradients, optimizer, workspace } = buffers;
    this.begin = new Commands(device, "begin step");
    this.begin.clear(gradients.flat);
    this.begin.clear(workspace.losses);
    this.begin.clear(workspace.agreements);
    const { decisions } = workspace;
    if (decisions.kind === "token_choice") this.begin.clear(decisions.decision.totals);
    this.batch = new Commands(device, "forward and backward");
    const pass = { config, weights, workspace };
    const lossScale = 1 / shape.gradientAccumulation;
    const state = transformerForward(this.batch, pass);
    transformerLosses(this.batch, pass, { state, lossScale, gradients });
    transformerBackward(this.batch, pass, { gradients, lossScale });
    this.update = new Commands(device, "optimizer");
    optimizerUpdate(this.update, { weights, gradients, state: optimizer }, { layout, settings });
    if (decisions.kind === "token_choice" && weights.routerBias) {
      depthBiasUpdate(this.update, { ...decisions, bias: weights.routerBias }, { config });
    }
  }

  /** Uploads a batch, and the seed of the random router. */
  load({ ids, targets }: Batch, { seed }: { seed: number }): void {
    const { workspace } = this.buffers;
    const { order, starts } = groupByToken(ids, { vocabSize: this.#config.vocabSize });
    writeTensor(this.device, workspace.ids, ids);
    writeTensor(this.device, workspace.targets, targets);
    writeTensor(this.device, workspace.tokenOrder, order);
    writeTensor(this.device, workspace.tokenStarts, starts);
    writeTensor(this.device, workspace.seed, Uint32Array.of(seed));
  }

  /** One update from the given batches; `step` counts updates from 0. The loss is that before the update. */
  async step(
    batches: readonly Batch[],
    { learningRate, step, seed }: { learningRate: number; step: number; seed: number },
  ): Promise<StepResult> {
    const { optimizer, workspace } = this.buffers;
    writeStep(this.device, optimizer, { learningRate, step, betas: this.#settings.betas });
    this.#run(batches, { step, seed, end: [this.update] });
    const [losses, norm, ...health] = await readTensors(this.device, [
      workspace.losses,
      optimizer.norm,
      ...healthTensors(workspace),
    ]);
    return {
      losses: lossTerms(this.#config, losses!),
      gradNorm: norm![0]!,
      health: routerHealth(health, workspace),
    };
  }

  /** The loss of a step's batches with the weights as they are now; no weight or moment changes. */
  async losses(
    batches: readonly Batch[],
    { step, seed }: { step: number; seed: number },
  ): Promise<LossTerms> {
    this.#run(batches, { step, seed, end: [] });
    return lossTerms(this.#config, await readTensor(this.device, this.buffers.workspace.losses));
  }

  #run(
    batches: readonly Batch[],
    { step, seed, end }: { step: number; seed: number; end: readonly Commands[] },
  ): void {
    this.#warmUp(step);
    batches.forEach((batch, i) => {
      this.load(batch, { seed: hash(`${seed} ${step} ${i}`) });
      const programs = [this.batch];
      if (i === 0) programs.unshift(this.begin);
      if (i === batches.length - 1) programs.push(...end);
      submit(this.device, programs);
    });
  }

  /** Sets what the routers' warm-up changes from step to step. */
  #warmUp(step: number): void {
    const { decisions, shape } = this.buffers.workspace;
    if (decisions.kind === "expert_choice" && shape.movingCapacity) {
      const warmup = capacityWarmup(step, { steps: this.#warmup.capacity });
      writeKept(this.device, decisions.selections, { config: this.#config, shape, warmup });
    }
    if (decisions.kind === "token_choice" && this.#warmup.balancing > 0) {
      const forced = step < this.#warmup.balancing ? this.#config.recursion!.numRecursions : 0;
      writeTensor(this.device, decisions.decision.forced, Uint32Array.of(forced));
    }
  }
}

/** The loss terms that a configuration has, from their sums on the device. */
export function lossTerms({ router }: ModelConfig, sums: ArrayLike<number>): LossTerms {
  const [ce, z] = [sums[LOSS_SLOTS.ce]!, sums[LOSS_SLOTS.z]!];
  if (router?.kind === "expert_choice") {
    const auxiliary = sums[LOSS_SLOTS.auxiliary]!;
    const total = ce + auxiliaryCoefficient(router) * auxiliary + zCoefficient(router) * z;
    return { ce, auxiliary, balancing: null, z, total };
  }
  if (router?.kind === "token_choice") {
    const balancing = sums[LOSS_SLOTS.balancing]!;
    const total = ce + balancingCoefficient(router) * balancing + depthZCoefficient(router) * z;
    return { ce, auxiliary: null, balancing, z, total };
  }
  return { ce, auxiliary: null, balancing: null, z: null, total: ce };
}
