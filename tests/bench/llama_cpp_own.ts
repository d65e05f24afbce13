/** This program's side of a comparison with llama.cpp. */
import { Commands, submit } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { BufferScope } from "../../gpu/memory.ts";
import { readTensor } from "../../gpu/readback.ts";
import { writeTensor } from "../../gpu/tensor.ts";
import { BatchEngine, ticksPerRead } from "../../model/batching/batch_engine.ts";
import { batchSize } from "../../model/batching/batch_size.ts";
import { type CheckpointSource, openCheckpoint } from "../../model/files/checkpoint_source.ts";
import { Decoder } from "../../model/decoder.ts";
import { fillWeights, planWeights } from "../../model/load_weights.ts";
import type { ModelWeights } from "../../model/model_weights.ts";
import { GREEDY } from "../../model/sampling.ts";
import { stepsPerRead } from "../../model/slot_sampler.ts";
import { headLogits } from "../../model/head.ts";
import { transformerForward } from "../../model/transformer.ts";
import { allocateWorkspace } from "../../model/workspace.ts";

const SAMPLING = { ...GREEDY, seed: 0 };

/** A model on the device, as `mor generate` would run it. */
export class OwnModel {
  readonly source: CheckpointSource;
  readonly #device: GpuDevice;
  readonly #scope: BufferScope;
  readonly #weights: ModelWeights;

  /** @throws CheckpointError or ConfigError for what is no model, MemoryError when it does not fit. */
  static async open(device: GpuDevice, path: string): Promise<OwnModel> {
    const source = await openCheckpoint(path);
    const scope = new BufferScope(device);
    using file = await source.openWeights();
    const planned = planWeights(scope, { config: source.config, file, choice: "auto" });
    await fillWeights(device, planned, { file });
    return new OwnModel(device, { source, scope, weights: planned.weights });
  }

  private constructor(
    device: GpuDevice,
    { source, scope, weights }: { source: CheckpointSource; scope: BufferScope; weights: ModelWeights },
  ) {
    this.#device = device;
    this.source = source;
    this.#scope = scope;
    this.#weights = weights;
  }

  /** Appends the logits after each token to a file, rows of the vocabulary's size. */
  async writeLogits({ ids, file }: { ids: readonly number[]; file: string }): Promise<void> {
    const { config } = this.source;
    const scope = new BufferScope(this.#device);
    const shape = { lengths: [ids.length], routing: "causal", backward: false, head: "all" } as const;
    const workspace = allocateWorkspace(scope, { config, shape });
    writeTensor(this.#device, workspace.ids, Uint32Array.from(ids));
    const commands = new Commands(this.#device, "forward");
    const pass = { config, weights: this.#weights, workspace };
    headLogits(commands, pass, { state: transformerForward(commands, pass) });
    submit(this.#device, [commands]);
    const logits = await readTensor(this.#device, workspace.logits);
    commands.destroy();
    scope.destroy();
    using out = await Deno.open(file, { append: true, create: true });
    const writer = out.writable.getWriter();
    const stride = logits.length / ids.length;
    for (let start = 0; start < logits.length; start += stride) {
      await writer.write(new Uint8Array(logits.slice(start, start + config.vocabSize).buffer));
    }
    writer.releaseLock();
  }

  /** The likeliest tokens that follow. */
  async continueGreedily({ ids, count }: { ids: readonly number[]; count: number }): Promise<number[]> {
    using decoder = this.decoder(ids.length + count);
    const chosen = [(await decoder.start(0, { prompt: ids, sampling: SAMPLING })).id];
    while (chosen.length < count) chosen.push((await decoder.step([0]))[0]![0]!.id);
    return chosen;
  }

  /** For one text of up to `capacity` tokens. */
  decoder(capacity: number): Decoder {
    return new Decoder(this.#device, {
      config: this.source.config,
      weights: this.#weights,
      slots: 1,
      capacity,
    });
  }

  /** For some texts of up to `capacity` tokens at once. */
  async batch({ sequences, capacity }: { sequences: number; capacity: number }): Promise<BatchEngine> {
    const { config } = this.source;
    const requests = Array.from(
      { length: sequences },
      () => ({ prompt: [0], count: capacity, sampling: SAMPLING }),
    );
    return new BatchEngine(this.#device, {
      config,
      weights: this.#weights,
      ...batchSize(this.#device, config, { requests, rows: sequences, kvDtype: "f32", kvBytes: null }),
      endTokens: [],
      ticks: await ticksPerRead(this.#device),
    });
  }

  /** Frees the weights. */
  [Symbol.dispose](): void {
    this.#scope.destroy();
  }
}

/** Milliseconds for a prompt of `count` tokens, with the first token drawn and read. */
export async function timePrompt(decoder: Decoder, { count }: { count: number }): Promise<number> {
  const prompt = Array.from({ length: count }, (_, i) => 32 + (i * 7) % 96);
  const start = performance.now();
  await decoder.start(0, { prompt, sampling: SAMPLING });
  return performance.now() - start;
}

/** Milliseconds for `count` tokens after a prompt of one, drawn on the device and read as `mor generate` reads them. */
export async function timeTokens(
  decoder: Decoder,
  { device, count }: { device: GpuDevice; count: number },
): Promise<number> {
  await decoder.start(0, { prompt: [32], sampling: SAMPLING });
  const together = stepsPerRead(device);
  const start = performance.now();
  for (let done = 0; done < count; done += together) {
    await decoder.step([0], { count: Math.min(together, count - done) });
  }
  return performance.now() - start;
}

/** Milliseconds for `count` tokens of each of some texts at once, drawn on the device and read as they come. */
export async function timeTogether(
  batch: BatchEngine,
  { count, sequences }: { count: number; sequences: number },
): Promise<number> {
  const start = performance.now();
  for (let text = 0; text < sequences; text++) batch.add({ prompt: [32 + text], count, sampling: SAMPLING });
  for (let left = sequences; left > 0;) {
    for (const { kind } of await batch.advance()) if (kind === "finished") left--;
  }
  return performance.now() - start;
}
