/** Runs a text through two models, window after window: how far the second one's predictions are from the first one's. */
import { Commands } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { divergence } from "../gpu/kernels/divergence.ts";
import type { Allocator } from "../gpu/memory.ts";
import { readTensors } from "../gpu/readback.ts";
import { createTensor, type Tensor } from "../gpu/tensor.ts";
import { ConfigError, type ModelConfig } from "./config.ts";
import type { Batch } from "./text/dataset.ts";
import { Evaluator } from "./evaluate.ts";
import type { ModelWeights } from "./model_weights.ts";
import { checkFinite, runWindows, type WindowRunner, type WindowShape, windowSums } from "./text_windows.ts";
import { allocateWorkspace, type Workspace } from "./workspace.ts";

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
 * causally. Both run at once, so that their logits stay on the device.
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
  readonly #evaluators: readonly Evaluator[];
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
    function workspaceOf({ config }: ComparedModel): Workspace {
      const shape = { lengths, routing: "causal", backward: false, head: "all" } as const;
      return allocateWorkspace(allocator, { config, shape });
    }
    const [referenceSpace, space] = [workspaceOf(reference), workspaceOf(model)];
    const { rows } = space.full;
    const result = (label: string): Tensor => createTensor(allocator, { shape: [rows.maximum], label });
    const outputs = { divergences: result("divergences"), agreements: result("agreements") };
    this.#device = device;
    this.#lengths = lengths;
    this.#results = [referenceSpace.tokenLosses, space.tokenLosses, outputs.divergences, outputs.agreements];
    this.#evaluators = [
      new Evaluator(device, { ...reference, workspace: referenceSpace }),
      new Evaluator(device, { ...model, workspace: space }),
    ];
    this.#commands = new Commands(device, "comparison");
    const logits = { referenceLogits: referenceSpace.logits, logits: space.logits };
    divergence(this.#commands, { ...logits, ...outputs }, { rows, vocabSize: model.config.vocabSize });
  }

  async run(batch: Batch): Promise<ComparedWindow[]> {
    for (const evaluator of this.#evaluators) evaluator.submit(batch);
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
    for (const evaluator of this.#evaluators) evaluator.destroy();
    this.#commands.destroy();
  }
}
