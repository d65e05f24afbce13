/** Loss on held-out text. Routed causally it is what the model is worth when it generates. */
import { Commands, submit } from "../gpu/commands.ts";
import type { GpuDevice } from "../gpu/device.ts";
import { readTensors } from "../gpu/readback.ts";
import { writeTensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { Batch } from "./text/dataset.ts";
import type { ModelWeights } from "./model_weights.ts";
import { depthFractions, selectionsOf } from "./router_health.ts";
import { transformerForward, transformerLosses } from "./transformer.ts";
import type { Workspace } from "./workspace.ts";

export interface Evaluation {
  /** Mean cross-entropy, nats per token. */
  readonly loss: number;
  /** Tokens that were predicted. */
  readonly tokens: number;
  /** Fraction of the tokens with each depth, 0 first; null without a router. */
  readonly depthFractions: readonly number[] | null;
}

/** A recorded forward pass with losses over a workspace. */
export class Evaluator {
  readonly #device: GpuDevice;
  readonly #workspace: Workspace;
  readonly #commands: Commands;

  constructor(
    device: GpuDevice,
    { config, weights, workspace }: { config: ModelConfig; weights: ModelWeights; workspace: Workspace },
  ) {
    this.#device = device;
    this.#workspace = workspace;
    this.#commands = new Commands(device, "evaluation");
    const pass = { config, weights, workspace };
    this.#commands.clear(workspace.losses);
    this.#commands.clear(workspace.agreements);
    const state = transformerForward(this.#commands, pass);
    transformerLosses(this.#commands, pass, { state, lossScale: 1, gradients: null });
  }

  /** Runs a batch that fills the workspace; what came out is read from there. */
  submit(batch: Batch): void {
    const { ids, targets } = this.#workspace;
    writeTensor(this.#device, ids, batch.ids);
    writeTensor(this.#device, targets, batch.targets);
    submit(this.#device, [this.#commands]);
  }

  /** Frees what the recording took; the workspace is not the evaluator's. */
  destroy(): void {
    this.#commands.destroy();
  }

  /** Mean over batches that fill the workspace. */
  async run(batches: Iterable<Batch>): Promise<Evaluation> {
    const { losses, full } = this.#workspace;
    const selections = selectionsOf(this.#workspace);
    const counts = selections.map(({ packing }) => packing.rows.count);
    const active: number[] = selections.map(() => 0);
    let sum = 0;
    let batchCount = 0;
    for (const batch of batches) {
      this.submit(batch);
      const [terms, ...stepCounts] = await readTensors(this.#device, [losses, ...counts]);
      sum += terms![0]!;
      stepCounts.forEach((count, r) => active[r]! += count[0]!);
      batchCount++;
    }
    const tokens = batchCount * full.rows.maximum;
    return {
      loss: sum / batchCount,
      tokens,
      depthFractions: selections.length > 0 ? depthFractions(active, { tokens }) : null,
    };
  }
}
