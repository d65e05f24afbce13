import { packSpans } from "./spans.ts";

/**
 * Candidates that go on: their indices, their number in each sequence, and the spans of the packed result.
 */
export interface Kept {
  /** Indices into the flat logits, ascending; (kept). */
  readonly chosen: Int32Array;
  /** Kept candidates of each sequence, may be 0; (B). */
  readonly lengths: Int32Array;
  /** `packSpans(lengths)`; (kept, 2). */
  readonly spans: Int32Array;
}

/**
 * The causal rule: a candidate is kept where its logit is above the threshold, whatever the others do.
 *
 * Logits of all sequences lie one after the other; lengths (B) says how many candidates each sequence has.
 */
export function thresholdChoice(
  { logits, lengths }: { logits: Float64Array; lengths: ArrayLike<number> },
  { threshold }: { threshold: number },
): Kept {
  const chosen: number[] = [];
  const kept = new Int32Array(lengths.length);
  let i = 0;
  for (let b = 0; b < lengths.length; b++) {
    for (const end = i + lengths[b]!; i < end; i++) {
      if (logits[i]! <= threshold) continue;
      chosen.push(i);
      kept[b]!++;
    }
  }
  return { chosen: Int32Array.from(chosen), lengths: kept, spans: packSpans(kept) };
}
