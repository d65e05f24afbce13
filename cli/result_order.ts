/** In which order results of `mor generate --prompts` are written, and what a line holds. */
import type { FailedText, FinishedText, TextRequest } from "../model/batching/batch_texts.ts";
import type { PromptLine } from "../model/text/prompt_lines.ts";

/** A prompt with everything that decides its text. */
export interface PlannedText {
  readonly line: PromptLine;
  readonly request: TextRequest;
  /** Whether the model's positions end its text before its count does. */
  readonly isShort: boolean;
}

/** Results in the order in which they are written. */
export class ResultOrder {
  readonly #texts: readonly PlannedText[];
  readonly #inOrder: boolean;
  /** By their turn; null for a text that could not be made. */
  readonly #held = new Map<number, Record<string, unknown> | null>();
  #turn = 0;
  /** Texts that are done, those that are written, that the model's positions ended, and that could not be made. */
  count = 0;
  written = 0;
  short = 0;
  failed = 0;

  constructor(texts: readonly PlannedText[], { inOrder }: { inOrder: boolean }) {
    this.#texts = texts;
    this.#inOrder = inOrder;
  }

  /** The results whose turn it is now that a text is done. */
  *add(text: FinishedText | FailedText): Generator<Record<string, unknown>> {
    const planned = this.#texts[text.index]!;
    const turn = this.#inOrder ? text.index : this.count;
    this.count++;
    if ("error" in text) this.failed++;
    else if (planned.isShort && text.reason === "length") this.short++;
    this.#held.set(turn, "error" in text ? null : resultOf(planned, text));
    for (let next = this.#held.get(this.#turn); next !== undefined; next = this.#held.get(this.#turn)) {
      this.#held.delete(this.#turn++);
      if (!next) continue;
      this.written++;
      yield next;
    }
  }
}

function resultOf(
  { line: { index, prompt, extra }, request: { sampling: { seed } } }: PlannedText,
  { text, reason, tokens, meanDepth }: FinishedText,
): Record<string, unknown> {
  return { index, ...extra, prompt, text, finish_reason: reason, tokens, mean_depth: meanDepth, seed };
}
