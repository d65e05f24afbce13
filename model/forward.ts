/** One pass over given token ids, with everything that another implementation could be compared by. */
import { Commands, submit } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { BufferScope } from "../gpu/memory.ts";
import { readTensors } from "../gpu/readback.ts";
import { createTensor, type TensorData, writeTensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { groupByToken } from "../gpu/kernels/embedding.ts";
import { packingTensors, rowDepths, stepRows } from "./depths.ts";
import type { Routing } from "./selection.ts";
import { CachedPass } from "./cached_pass.ts";
import { generate } from "./generate.ts";
import { headLogits } from "./head.ts";
import { allocateCache } from "./kv_cache.ts";
import type { ModelWeights } from "./model_weights.ts";
import type { ParameterLayout } from "./parameter_layout.ts";
import { GREEDY } from "./sampling.ts";
import { writeSafetensors } from "./files/safetensors_writer.ts";
import { type LossTerms, lossTerms } from "./training.ts";
import { transformerBackward, transformerForward, transformerLosses } from "./transformer.ts";
import { parameterSources } from "./weights.ts";
import { allocateWorkspace } from "./workspace.ts";

/** Token ids and, if losses are wanted, the token that each position should predict; (B, T) as nested lists. */
export interface ForwardInput {
  readonly ids: readonly (readonly number[])[];
  readonly targets: readonly (readonly number[])[] | null;
}

export interface ForwardResult {
  /** (B, T, V) */
  readonly logits: number[][][];
  readonly losses: LossTerms | null;
  /** Positions that each recursion step runs: (step, row, kept); null without a router. */
  readonly selected: number[][][] | null;
  /** (B, T) recursion steps that each token runs; null for a vanilla model. */
  readonly depths: number[][] | null;
}

/** A model on the device. */
export interface Model {
  readonly config: ModelConfig;
  readonly layout: ParameterLayout;
  readonly weights: ModelWeights;
}

/** Causal routing, as in generation. */
export async function forwardCausal(
  device: GpuDevice,
  { model, input }: { model: Model; input: ForwardInput },
): Promise<ForwardResult> {
  return await forward(device, { model, input, routing: "causal", gradientsPath: null });
}

/** Routing by top-k, as in training; writes the gradients of the total loss if a path is given. */
export async function forwardTopK(
  device: GpuDevice,
  { model, input, gradientsPath }: { model: Model; input: ForwardInput; gradientsPath: string | null },
): Promise<ForwardResult> {
  return await forward(device, { model, input, routing: "top-k", gradientsPath });
}

/**
 * Causal routing through a cache: the first `split` tokens of each row at once, the rest one by one. What it computes
 * must equal `forwardCausal`.
 */
export async function forwardCached(
  device: GpuDevice,
  { model, input: { ids, targets }, split }: { model: Model; input: ForwardInput; split: number },
): Promise<ForwardResult> {
  const { config, weights } = model;
  const lengths = ids.map((row) => row.length);
  const longest = Math.max(...lengths);
  const first = Math.min(Math.max(1, split), longest);
  const scope = new BufferScope(device);
  const cache = allocateCache(scope, { config, slots: ids.length, capacity: longest });
  const passes = [first, 1].map((rows) =>
    new CachedPass(device, { config, weights, cache, rows, head: "all", allocator: scope })
  ) as [CachedPass, CachedPass];
  const fixedDepth = config.recursion && !config.router ? config.recursion.numRecursions : 0;
  const logits: number[][][] = [];
  const depths: number[][] = [];
  for (const [slot, row] of ids.entries()) {
    logits.push([]);
    depths.push([]);
    for (let start = 0; start < row.length;) {
      const pass = start === 0 && split > 0 ? passes[0] : passes[1];
      const part = row.slice(start, start + pass.rows);
      pass.run({ slot, start, ids: part });
      const { workspace } = pass;
      const [values, rowDepths] = await readTensors(device, [workspace.logits, workspace.cache!.depths]);
      const used = values!.subarray(0, part.length * workspace.logits.shape[1]!) as Float32Array;
      logits[slot]!.push(...nest(used, { lengths: [part.length], vocabSize: config.vocabSize })[0]!);
      depths[slot]!.push(...Array.from(rowDepths!.subarray(0, part.length), (depth) => fixedDepth + depth));
      start += part.length;
    }
  }
  for (const pass of passes) pass.destroy();
  scope.destroy();
  return {
    logits,
    losses: targets && lossTerms({ ...config, router: null }, [meanCrossEntropy(logits, targets)]),
    selected: config.router && selectedByDepth(depths, config),
    depths: config.recursion && depths,
  };
}

function meanCrossEntropy(logits: readonly number[][][], targets: ForwardInput["ids"]): number {
  const losses = logits.flatMap((row, b) =>
    row.map((values, t) => {
      const largest = Math.max(...values);
      const sum = values.reduce((total, value) => total + Math.exp(value - largest), 0);
      return largest + Math.log(sum) - values[targets[b]![t]!]!;
    })
  );
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

/** Positions that each recursion step ran: a token of depth d ran the first d steps. */
function selectedByDepth(depths: readonly number[][], { recursion }: ModelConfig): number[][][] {
  return Array.from(
    { length: recursion!.numRecursions },
    (_, step) => depths.map((row) => row.flatMap((depth, position) => depth > step ? [position] : [])),
  );
}

/** The tokens that greedy causal decoding appends to a prompt, through the cache. */
export async function greedyContinuation(
  device: GpuDevice,
  { model, prompt, count }: { model: Model; prompt: readonly number[]; count: number },
): Promise<number[]> {
  const options = { prompt, count, sampling: GREEDY, seed: 0, logProbabilities: 0, endTokens: [] };
  return (await Array.fromAsync(generate(device, model, options))).map(({ id }) => id);
}

/** What `greedyContinuation` gives, but without a cache: the whole text runs again for each token. */
export async function greedyRecomputed(
  device: GpuDevice,
  { model, prompt, count }: { model: Model; prompt: readonly number[]; count: number },
): Promise<number[]> {
  const ids = [...prompt];
  for (let i = 0; i < count; i++) {
    const { logits } = await forwardCausal(device, { model, input: { ids: [ids], targets: null } });
    const last = logits[0]!.at(-1)!;
    ids.push(last.indexOf(Math.max(...last)));
  }
  return ids.slice(prompt.length);
}

async function forward(
  device: GpuDevice,
  { model: { config, layout, weights }, input: { ids, targets }, routing, gradientsPath }: {
    model: Model;
    input: ForwardInput;
    routing: Routing;
    gradientsPath: string | null;
  },
): Promise<ForwardResult> {
  const lengths = ids.map((row) => row.length);
  const backward = gradientsPath !== null;
  const scope = new BufferScope(device);
  const workspace = allocateWorkspace(scope, {
    config,
    shape: { lengths, routing, backward, head: targets ? "losses" : "all" },
  });
  const pass = { config, weights, workspace };
  const flatIds = Uint32Array.from(ids.flat());
  writeTensor(device, workspace.ids, flatIds);

  const commands = new Commands(device, "forward");
  const state = transformerForward(commands, pass);
  const gradients = backward ? layout.allocate(scope, "gradients") : null;
  let { logits } = workspace;
  if (targets) {
    writeTensor(device, workspace.targets, Uint32Array.from(targets.flat()));
    // Losses leave no logits behind.
    logits = createTensor(scope, { shape: [flatIds.length, logits.shape[1]!], label: "all logits" });
    transformerLosses(commands, pass, { state, lossScale: 1, gradients, allLogits: logits });
  } else {
    headLogits(commands, pass, { state });
  }
  if (gradients) {
    const { order, starts } = groupByToken(flatIds, { vocabSize: config.vocabSize });
    writeTensor(device, workspace.tokenOrder, order);
    writeTensor(device, workspace.tokenStarts, starts);
    transformerBackward(commands, pass, { gradients, lossScale: 1 });
    submit(device, [commands]);
    await writeSafetensors(gradientsPath!, {
      tensors: parameterSources(device, { layout, views: gradients }),
      metadata: { format: "pt" },
    });
  } else {
    submit(device, [commands]);
  }
  const [sums, data, ...packings] = await readTensors(device, [
    workspace.losses,
    logits,
    ...packingTensors(workspace),
  ]) as [Float32Array, Float32Array, ...TensorData[]];
  const perRow = rowDepths(config, { rows: flatIds.length, steps: stepRows(packings) });
  const depths = perRow && bySequence(perRow, lengths);
  commands.destroy();
  scope.destroy();
  return {
    logits: nest(data, { lengths, vocabSize: config.vocabSize }),
    losses: targets && passLosses(config, { sums, routing }),
    selected: config.router && selectedByDepth(depths!, config),
    depths,
  };
}

/** Expert choice by causal routing has no kept and dropped candidates, so its losses mean nothing there. */
function passLosses(
  config: ModelConfig,
  { sums, routing }: { sums: ArrayLike<number>; routing: Routing },
): LossTerms {
  const isCausalChoice = routing === "causal" && config.router?.kind === "expert_choice";
  return lossTerms(isCausalChoice ? { ...config, router: null } : config, sums);
}

/** A value for each row of the state, by sequence and position. */
function bySequence(values: Iterable<number>, lengths: readonly number[]): number[][] {
  const all = Array.from(values);
  let start = 0;
  return lengths.map((tokens) => all.slice(start, start += tokens));
}

/** Rows of logits, without the padding of the vocabulary, by sequence and position. */
function nest(
  data: Float32Array,
  { lengths, vocabSize }: { lengths: readonly number[]; vocabSize: number },
): number[][][] {
  const rows = lengths.reduce((sum, length) => sum + length, 0);
  const stride = data.length / rows;
  let start = -stride;
  return lengths.map((tokens) =>
    Array.from({ length: tokens }, () => {
      start += stride;
      return Array.from(data.subarray(start, start + vocabSize));
    })
  );
}
