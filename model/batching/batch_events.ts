/** What a depth-wise batch tells of its requests and of itself. */
import type { DecodedToken } from "../slot_sampler.ts";

/** What happens to a request, named by the number that `add` gave it. */
export type BatchEvent =
  | { readonly kind: "token"; readonly request: number; readonly token: DecodedToken }
  | { readonly kind: "finished"; readonly request: number; readonly reason: FinishReason }
  | { readonly kind: "error"; readonly request: number; readonly error: Error };

/** Why a text is done: an end token, which is not part of it; its number of tokens; `cancel`. */
export type FinishReason = "end" | "length" | "cancelled";

/** How a batch has gone so far. */
export interface BatchStatistics {
  /** Rows of the block that ran a token, of all rows that ran. */
  readonly occupancy: number;
  /** Times that the block ran, and rows that it ran in all. */
  readonly blockRuns: number;
  readonly blockRows: number;
  /** Tokens drawn, each once, and the sum of their depths. */
  readonly tokens: number;
  readonly depths: number;
  /** Pages of keys and values in use, and all that there are. */
  readonly pages: number;
  readonly allPages: number;
  /** Texts that were put into a slot, and of those the ones that had been before and gave way for want of pages. */
  readonly begun: number;
  readonly restarts: number;
  /** Texts in slots, those of them whose next token waits for a page, and texts that wait for a slot. */
  readonly live: number;
  readonly stalled: number;
  readonly waiting: number;
}
