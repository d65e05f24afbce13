/** Cuts a text into windows and runs them batch after batch, in buffers made once for all batches of one shape. */
import { setImmediate } from "node:timers";
import type { GpuDevice } from "../gpu/device.ts";
import { type Allocator, BufferScope } from "../gpu/memory.ts";
import type { Batch } from "./text/dataset.ts";
import { CheckpointError } from "./files/safetensors.ts";

/** How a text is cut. */
export interface WindowShape {
  /** Windows run at once. */
  readonly batchSize: number;
  /** Tokens of a window; the last one may be shorter. */
  readonly sequenceLength: number;
}

/** What runs batches of windows of given lengths. */
export interface WindowRunner<Result> {
  run(batch: Batch): Promise<Result>;
  /** Frees what the recording took; its buffers are freed with the allocator that it got. */
  destroy(): void;
}

/** A text and what runs it. */
export interface WindowRun<Result> {
  /** At least two tokens. */
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly shape: WindowShape;
  /** @param lengths Predictions of each window. */
  readonly open: (allocator: Allocator, lengths: readonly number[]) => WindowRunner<Result>;
}

/** The text of one batch. */
interface WindowBatch extends Batch {
  /** Predictions of each window. */
  readonly lengths: readonly number[];
}

/** What each batch gave. Every token of the text but the first is predicted once. */
export async function* runWindows<Result>(
  device: GpuDevice,
  { tokens, shape, open }: WindowRun<Result>,
): AsyncGenerator<Result> {
  const scope = new BufferScope(device);
  let runner: WindowRunner<Result> | null = null;
  let rows = 0;
  try {
    for (const { lengths, ...batch } of windowBatches(tokens, shape)) {
      // Only the last batch can be smaller than the others.
      if (runner === null || rows !== batch.ids.length) {
        runner?.destroy();
        scope.destroy();
        runner = open(scope, lengths);
        rows = batch.ids.length;
      }
      yield await runner.run(batch);
      // Reading back blocks the event loop: let signals and timers through.
      await new Promise((resolve) => setImmediate(resolve));
    }
  } finally {
    runner?.destroy();
    scope.destroy();
  }
}

/** The text in order; the last batch may have fewer windows, the last of them fewer tokens. */
function* windowBatches(
  tokens: Uint32Array<ArrayBuffer>,
  { batchSize, sequenceLength }: WindowShape,
): Generator<WindowBatch> {
  const predictions = tokens.length - 1;
  for (let start = 0; start < predictions; start += batchSize * sequenceLength) {
    const end = Math.min(start + batchSize * sequenceLength, predictions);
    const lengths: number[] = [];
    for (let at = start; at < end; at += sequenceLength) lengths.push(Math.min(sequenceLength, end - at));
    yield { ids: tokens.subarray(start, end), targets: tokens.subarray(start + 1, end + 1), lengths };
  }
}

/** Sums of the tokens' values window by window. */
export function windowSums(values: Float32Array, { lengths }: { lengths: readonly number[] }): number[] {
  let start = 0;
  return lengths.map((tokens) =>
    Float64Array.from(values.subarray(start, start += tokens)).reduce((sum, value) => sum + value, 0)
  );
}

/** @throws CheckpointError for a value that is not finite. */
export function checkFinite(
  values: Float32Array,
  { action, subject }: { action: string; subject: string },
): void {
  const wrong = values.find((value) => !Number.isFinite(value));
  if (wrong === undefined) return;
  throw new CheckpointError(
    `Cannot ${action}: ${subject} of a token is ${wrong}, wanted a finite number; ` +
      "the weights are not those of a working model, use an earlier checkpoint or train again",
  );
}
