/** Runs a text through two models, window after window: how far the second one's predictions are from the first one's. */
import { Commands } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { divergence } from "../gpu/kernels/divergence.ts";
import type { Allocator } from "../gpu/memory.ts";
import { readTensors } from "../gpu/readback.ts";
import { createTensor, type Tensor, writeTensor } from "../gpu/tensor.ts";
import { ConfigError, type ModelConfig } from "./config.ts";
import type { Batch } from "./text/dataset.ts";
import { chunkLogits, chunkLosses } from "./head.ts";
import type { ModelWeights } from "./model_weights.ts";
import { checkFinite, runWindows, type WindowRunner, type WindowShape, windowSums } from "./text_windows.ts";
import { transformerForward } from "./transformer.ts";
import { allocateWorkspace, type Pass, type Workspace } from "./workspace.ts";

/** A model that can be run. */
export interface ComparedModel {
  readonly config: ModelConfig;
  readonly weights: ModelWeights;
}

/** Two models, a text and how to cut it. */
export interface TextComparison {
  readonly reference: ComparedModel;
  /** The model to judge, of the same vocabulary. */
  readonly model: ComparedModel;
  /** At least two tokens. */
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly shape: WindowShape;
}

/** What one window gave: sums over its tokens. */
export interface ComparedWindow {
  /** Tokens that were predicted. */
  readonly tokens: number;
  /** Cross-entropy, nats. */
  readonly referenceLoss: number;
  readonly loss: number;
  /** KL(reference || model) of the next token's distribution, nats. */
  readonly divergence: number;
  /** Tokens for which both models find the same next one likeliest. */
  readonly agreements: number;
}

/**
 * Every token of the text but the first is predicted once by each model, from the tokens of its window before it, routed
 * causally. Both run at once, so that their logits stay on the device, those of some rows at a time.
 *
 * @throws ConfigError for models of unlike vocabularies, or windows longer than a model's positions; CheckpointError for
 * weights that give no finite loss or divergence; MemoryError when a batch does not fit.
 */
export async function* compareText(
  device: GpuDevice,
  { reference, model, tokens, shape }: TextComparison,
): AsyncGenerator<ComparedWindow> {
  const [wanted, met] = [reference.config.vocabSize, model.config.vocabSize];
  if (met !== wanted) {
    throw new ConfigError(
      `Cannot compare a model with a vocabulary of ${met} tokens to a reference with ${wanted}; ` +
        "choose two models with the same tokenizer",
    );
  }
  const batches = runWindows(device, {
    tokens,
    shape,
    open: (allocator, lengths) => new Comparer(device, { allocator, lengths, reference, model }),
  });
  for await (const windows of batches) yield* windows;
}

/** A recorded pass of both models and of what tells their logits apart. */
class Comparer implements WindowRunner<ComparedWindow[]> {
  readonly #device: GpuDevice;
  readonly #lengths: readonly number[];
  readonly #passes: readonly [reference: Pass, model: Pass];
  readonly #commands: Commands;
  /** (M) f32 each: losses of the reference and of the model, divergences, agreements. */
  readonly #results: readonly Tensor[];

  constructor(
    device: GpuDevice,
    { allocator, lengths, reference, model }: {
      allocator: Allocator;
      lengths: readonly number[];
      reference: ComparedModel;
      model: ComparedModel;
    },
  ) {
    function passOf({ config, weights }: ComparedModel): Pass {
      const shape = { lengths, routing: "causal", backward: false, head: "losses" } as const;
      return { config, weights, workspace: allocateWorkspace(allocator, { config, shape }) };
    }
    this.#device = device;
    this.#lengths = lengths;
    this.#passes = [passOf(reference), passOf(model)];
    const [referenceSpace, space] = this.#passes.map(({ workspace }) => workspace) as [Workspace, Workspace];
    const result = (label: string): Tensor =>
      createTensor(allocator, { shape: [space.full.rows.maximum], label });
    const outputs = { divergences: result("divergences"), agreements: result("agreements") };
    this.#results = [referenceSpace.tokenLosses, space.tokenLosses, outputs.divergences, outputs.agreements];
    this.#commands = new Commands(device, "comparison");
    const runs = this.#passes.map((pass) => ({ pass, state: transformerForward(this.#commands, pass) }));
    const logits = { referenceLogits: referenceSpace.logits, logits: space.logits };
    // The chunks of both are the same, as their vocabularies are.
    for (const chunk of space.headChunks) {
      for (const { pass, state } of runs) {
        chunkLogits(this.#commands, pass, { state, chunk });
        chunkLosses(this.#commands, pass, { chunk, gradientScale: null });
      }
      divergence(this.#commands, { ...logits, ...outputs }, { ...chunk, vocabSize: model.config.vocabSize });
    }
  }

  async run({ ids, targets }: Batch): Promise<ComparedWindow[]> {
    for (const { workspace } of this.#passes) {
      writeTensor(this.#device, workspace.ids, ids);
      writeTensor(this.#device, workspace.targets, targets);
    }
    const results = await readTensors(this.#device, this.#results, { after: [this.#commands] });
    const [referenceLosses, losses, divergences] = results as [Float32Array, Float32Array, Float32Array];
    checkFinite(referenceLosses, { action: "compare", subject: "the reference's loss" });
    checkFinite(losses, { action: "compare", subject: "the model's loss" });
    checkFinite(divergences, { action: "compare", subject: "the divergence" });
    const [referenceLoss, loss, divergence, agreements] = results.map((values) =>
      windowSums(values as Float32Array, { lengths: this.#lengths })
    ) as [number[], number[], number[], number[]];
    return this.#lengths.map((tokens, w) => ({
      tokens,
      referenceLoss: referenceLoss[w]!,
      loss: loss[w]!,
      divergence: divergence[w]!,
      agreements: agreements[w]!,
    }));
  }

  destroy(): void {
    this.#commands.destroy();
  }
}
