/** The buffers and programs of a training run, and one optimizer step with them. */
import { Commands, submit } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { groupByToken } from "../gpu/kernels/embedding.ts";
import { type Allocator, type MemoryLedger, planAllocator } from "../gpu/memory.ts";
import { MemoryError } from "../gpu/errors.ts";
import { readTensor, readTensors } from "../gpu/readback.ts";
import { writeTensor } from "../gpu/tensor.ts";
import { type ExpertChoiceConfig, keptTokens, type ModelConfig } from "./config.ts";
import type { Batch } from "./dataset.ts";
import { auxiliaryCoefficient, zCoefficient } from "./expert_choice.ts";
import {
  allocateOptimizer,
  type OptimizerSettings,
  type OptimizerState,
  optimizerUpdate,
  writeStep,
} from "./optimizer.ts";
import { ParameterLayout, type ParameterViews } from "./parameters.ts";
import { hash } from "./random.ts";
import { transformerBackward, transformerForward, transformerLosses } from "./transformer.ts";
import { allocateWorkspace, type Workspace } from "./workspace.ts";

/** Sizes of a step. */
export interface StepShape {
  readonly batchSize: number;
  readonly sequenceLength: number;
  /** Batches whose gradients are added before an update. */
  readonly gradientAccumulation: number;
}

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

/** Loss terms by name: means over tokens (ce) or candidates (the others), nats. */
export interface LossTerms {
  readonly ce: number;
  readonly auxiliary: number | null;
  readonly z: number | null;
  /** What is differentiated: ce + coefficient * each other term. */
  readonly total: number;
}

/** Most rows (B * T) whose index tables are worth building on the host before memory is checked. */
const MAX_ROWS = 2 ** 26;

/** @throws MemoryError when it does not fit the allocator's budget or limits. */
export function allocateTraining(
  device: Allocator,
  { config, shape, evaluationSequences }: {
    config: ModelConfig;
    shape: StepShape;
    evaluationSequences: number;
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
      shape: { sequences, tokens, routing: "top-k", backward: true, head: "all" },
    }),
    evaluation: evaluationSequences === 0 ? null : allocateWorkspace(device, {
      config,
      shape: { sequences: evaluationSequences, tokens, routing: "causal", backward: false, head: "all" },
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
}

/** Recorded programs over the buffers. */
export class TrainingPrograms {
  readonly device: GpuDevice;
  readonly buffers: TrainingBuffers;
  readonly #config: ModelConfig;
  readonly #settings: OptimizerSettings;
  /** Clears what a step adds up. */
  readonly begin: Commands;
  /** Forward and backward of one batch. */
  readonly batch: Commands;
  readonly update: Commands;

  constructor(
    device: GpuDevice,
    { config, shape, buffers, settings }: {
      config: ModelConfig;
      shape: StepShape;
      buffers: TrainingBuffers;
      settings: OptimizerSettings;
    },
  ) {
    this.device = device;
    this.buffers = buffers;
    this.#config = config;
    this.#settings = settings;
    const { layout, weights, gradients, optimizer, workspace } = buffers;
    this.begin = new Commands(device, "begin step");
    this.begin.clear(gradients.flat);
    this.begin.clear(workspace.losses);
    this.batch = new Commands(device, "forward and backward");
    const pass = { config, weights, workspace };
    const lossScale = 1 / shape.gradientAccumulation;
    const finalState = transformerForward(this.batch, pass, { lossScale });
    transformerLosses(this.batch, pass, { lossScale, gradient: true });
    transformerBackward(this.batch, pass, { gradients, finalState });
    this.update = new Commands(device, "optimizer");
    optimizerUpdate(this.update, { weights, gradients, state: optimizer }, { layout, settings });
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
    const [losses, norm] = await readTensors(this.device, [workspace.losses, optimizer.norm]);
    return { losses: lossTerms(this.#config, losses!), gradNorm: norm![0]! };
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
    batches.forEach((batch, i) => {
      this.load(batch, { seed: hash(`${seed} ${step} ${i}`) });
      const programs = [this.batch];
      if (i === 0) programs.unshift(this.begin);
      if (i === batches.length - 1) programs.push(...end);
      submit(this.device, programs);
    });
  }
}

/** The loss terms that a configuration has, from their sums on the device. */
export function lossTerms({ router }: ModelConfig, sums: ArrayLike<number>): LossTerms {
  const [ce, auxiliary, z] = [sums[0]!, sums[1]!, sums[2]!];
  if (router?.kind !== "expert_choice") return { ce, auxiliary: null, z: null, total: ce };
  return {
    ce,
    auxiliary,
    z,
    total: ce + auxiliaryCoefficient(router) * auxiliary + zCoefficient(router) * z,
  };
}

/**
 * Fraction of the tokens with each depth, 0 recursion steps first: what the capacities of expert choice prescribe.
 * Null without a router.
 */
export function prescribedDepthFractions(
  config: ModelConfig,
  { tokens }: { tokens: number },
): number[] | null {
  if (config.router?.kind !== "expert_choice") return null;
  const router: ExpertChoiceConfig = config.router;
  const kept = keptTokens(router, { numRecursions: config.recursion!.numRecursions, tokens });
  return depthFractions(kept, { tokens });
}

/** From tokens that take part in each step to the fraction with each depth. */
export function depthFractions(active: readonly number[], { tokens }: { tokens: number }): number[] {
  return [tokens, ...active].map((count, r) => (count - (active[r] ?? 0)) / tokens);
}
