import { row } from "./rows.ts";
import { forward } from "./transformer.ts";
import type { Model } from "./weights.ts";

/**
 * The `count` tokens that greedy decoding appends to the prompt, in inference mode (logit above 0).
 *
 * Recomputes the whole sequence for every token: no cache that could be wrong. A tie goes to the lower token
 * id.
 */
export function decodeGreedily(
  model: Model,
  { prompt, count }: { prompt: ArrayLike<number>; count: number },
): Int32Array {
  const ids = Array.from(prompt);
  for (let i = 0; i < count; i++) {
    const { logits } = forward(model, { ids, sequences: 1, selection: { kind: "threshold", threshold: 0 } });
    const last = row(logits, { index: ids.length - 1, width: model.config.vocabSize });
    ids.push(last.reduce((best, value, id) => value > last[best]! ? id : best, 0));
  }
  return Int32Array.from(ids.slice(prompt.length));
}
