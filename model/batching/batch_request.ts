/** A text that a batch is asked for. */
import { samplingRecord, type SlotSampling } from "../../gpu/kernels/sample.ts";
import { ConfigError } from "../config.ts";
import type { BatchShape } from "./batch_device.ts";

/** A text to begin. */
export interface BatchRequest {
  readonly prompt: readonly number[];
  /** Most tokens to draw, 1 at least. */
  readonly count: number;
  readonly sampling: SlotSampling;
}

/**
 * @throws ConfigError for an empty prompt, tokens that the model does not have, a count that is not a whole number from
 * 1, more tokens than a text may have; RangeError for sampling that cannot be meant.
 */
export function checkRequest(
  { prompt, count, sampling }: BatchRequest,
  { capacity, config: { vocabSize } }: Pick<BatchShape, "capacity" | "config">,
): void {
  if (prompt.length === 0) {
    throw new ConfigError("Cannot generate from an empty prompt; give at least one token");
  }
  const unknown = prompt.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
  if (unknown !== undefined) {
    throw new ConfigError(
      `Cannot generate from token ${unknown}: the model has tokens 0 to ${vocabSize - 1}`,
    );
  }
  if (!(Number.isInteger(count) && count >= 1)) {
    throw new ConfigError(`Cannot generate ${count} tokens; give a whole number, at least 1`);
  }
  // The last token drawn does not run.
  if (prompt.length + count - 1 > capacity) {
    throw new ConfigError(
      `Cannot generate ${count} tokens after a prompt of ${prompt.length}: there is room for ${capacity} tokens; ` +
        "give a shorter prompt or ask for fewer",
    );
  }
  samplingRecord(sampling);
}
