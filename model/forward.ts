/** One pass over given token ids, with everything that another implementation could be compared by. */
import { Commands, submit } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { readTensor, readTensors } from "../gpu/readback.ts";
import { createTensor, writeTensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { groupByToken } from "../gpu/kernels/embedding.ts";
import type { Routing } from "./expert_choice.ts";
import { CausalForward, generate } from "./generate.ts";
import type { ParameterLayout, ParameterViews } from "./parameters.ts";
import { writeSafetensors } from "./safetensors.ts";
import { type LossTerms, lossTerms } from "./training.ts";
import { transformerBackward, transformerForward, transformerLosses } from "./transformer.ts";
import { parameterSources } from "./weights.ts";
import { allocateWorkspace, type Workspace } from "./workspace.ts";

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
  readonly weights: ParameterViews;
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

/** The tokens that greedy causal decoding appends to a prompt. */
export async function greedyContinuation(
  device: GpuDevice,
  { model, prompt, count }: { model: Model; prompt: readonly number[]; count: number },
): Promise<number[]> {
  const tokens = generate(new CausalForward(device, model), {
    prompt,
    count,
    sampling: { temperature: 0, topK: 0, topP: 1, minP: 0, repeatPenalty: 1 },
    seed: 0,
    logProbabilities: 0,
    endOfText: null,
  });
  return (await Array.fromAsync(tokens)).map(({ id }) => id);
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
  const sequences = ids.length;
  const tokens = ids[0]!.length;
  const backward = gradientsPath !== null;
  const workspace = allocateWorkspace(device, {
    config,
    shape: { sequences, tokens, routing, backward, head: "all" },
  });
  const pass = { config, weights, workspace };
  const flatIds = Uint32Array.from(ids.flat());
  writeTensor(device, workspace.ids, flatIds);

  const commands = new Commands(device, "forward");
  const lossScale = routing === "top-k" ? 1 : null;
  const finalState = transformerForward(commands, pass, { lossScale });
  // The losses turn the logits into their gradient.
  const logits = createTensor(device, { shape: workspace.logits.shape, label: "logits" });
  commands.copy(workspace.logits, logits);
  if (targets) {
    writeTensor(device, workspace.targets, Uint32Array.from(targets.flat()));
    transformerLosses(commands, pass, { lossScale: 1, gradient: backward });
  }
  if (backward) {
    const { order, starts } = groupByToken(flatIds, { vocabSize: config.vocabSize });
    writeTensor(device, workspace.tokenOrder, order);
    writeTensor(device, workspace.tokenStarts, starts);
    const gradients = layout.allocate(device, "gradients");
    transformerBackward(commands, pass, { gradients, finalState });
    submit(device, [commands]);
    await writeSafetensors(gradientsPath, {
      tensors: parameterSources(device, { layout, views: gradients }),
      metadata: { format: "pt" },
    });
  } else {
    submit(device, [commands]);
  }
  const sums = await readTensor(device, workspace.losses);
  const selected = await selectedPositions(device, workspace);
  return {
    logits: nest(await readTensor(device, logits) as Float32Array, {
      sequences,
      tokens,
      vocabSize: config.vocabSize,
    }),
    losses: targets && (routing === "top-k" ? lossTerms(config, sums) : ceOnly(sums[0]!)),
    selected,
    depths: depthsOf(selected, { config, sequences, tokens }),
  };
}

/** Causal routing has no candidates to compare, so the routers' losses mean nothing there. */
function ceOnly(ce: number): LossTerms {
  return { ce, auxiliary: null, z: null, total: ce };
}

async function selectedPositions(
  device: GpuDevice,
  { selections, shape: { sequences, tokens } }: Workspace,
): Promise<number[][][] | null> {
  if (selections.length === 0) return null;
  const steps: number[][][] = [];
  for (const { packing: { rows, records } } of selections) {
    const [count, data] = await readTensors(device, [rows.count, records]);
    const step: number[][] = Array.from({ length: sequences }, () => []);
    for (let row = 0; row < count![0]!; row++) {
      step[Math.floor(data![row * 4]! / tokens)]!.push(data![row * 4 + 1]!);
    }
    steps.push(step);
  }
  return steps;
}

function depthsOf(
  selected: number[][][] | null,
  { config: { recursion }, sequences, tokens }: { config: ModelConfig; sequences: number; tokens: number },
): number[][] | null {
  if (!recursion) return null;
  const fixed = selected ? 0 : recursion.numRecursions;
  const depths = Array.from({ length: sequences }, () => new Array<number>(tokens).fill(fixed));
  selected?.forEach((step) => step.forEach((row, b) => row.forEach((position) => depths[b]![position]!++)));
  return depths;
}

function nest(
  data: Float32Array,
  { sequences, tokens, vocabSize }: { sequences: number; tokens: number; vocabSize: number },
): number[][][] {
  const stride = data.length / (sequences * tokens);
  return Array.from({ length: sequences }, (_, b) =>
    Array.from({ length: tokens }, (_, t) => {
      const start = (b * tokens + t) * stride;
      return Array.from(data.subarray(start, start + vocabSize));
    }));
}
