/** Texts for many prompts at once: tokens of depth-wise batching, put together and ended where they should. */
import type { GpuDevice } from "../../gpu/device.ts";
import { StoppedText } from "../text/stopped_text.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { BatchShape } from "./batch_device.ts";
import { BatchEngine } from "./batch_engine.ts";
import type { BatchStatistics, FinishReason } from "./batch_events.ts";
import type { BatchRequest } from "./batch_request.ts";

/** A prompt whose text is wanted; it may be one without tokens. */
export interface TextRequest extends BatchRequest {
  /** The text ends before any of these. */
  readonly stop: readonly string[];
}

/** A text that is done. */
export interface FinishedText {
  /** Place of its request. */
  readonly index: number;
  readonly text: string;
  /** Why it ended: an end token, a stop string, its number of tokens. */
  readonly reason: Exclude<FinishReason, "cancelled"> | "stop";
  /** Tokens drawn, those of a stop string with them. */
  readonly tokens: number;
  /** Mean recursion depth of the tokens that the text was drawn after. */
  readonly meanDepth: number;
}

/** A text that cannot be made. */
export interface FailedText {
  /** Place of its request. */
  readonly index: number;
  readonly error: Error;
}

/** A text in the making. */
interface OpenText {
  readonly index: number;
  readonly text: StoppedText;
  tokens: number;
  depths: number;
}

/**
 * The texts of requests, as they finish or fail.
 *
 * @param isContinuation Whether a text goes on with its prompt, rather than answer it; see `DecodeOptions`.
 * @param onTokens Told now and then how it goes.
 * @throws ConfigError, MemoryError, RangeError: as `BatchEngine` does for what cannot run.
 */
export async function* generateTexts(
  device: GpuDevice,
  shape: BatchShape,
  { requests, tokenizer, isContinuation, onTokens = () => {} }: {
    requests: readonly TextRequest[];
    tokenizer: Tokenizer;
    isContinuation: boolean;
    onTokens?: (statistics: BatchStatistics) => void;
  },
): AsyncGenerator<FinishedText | FailedText> {
  const nothing = { text: "", reason: "length", tokens: 0, meanDepth: 0 } as const;
  for (const [index, { count }] of requests.entries()) if (count === 0) yield { index, ...nothing };
  if (requests.every(({ count }) => count === 0)) return;
  using engine = new BatchEngine(device, shape);
  const open = new Map<number, OpenText>();
  requests.forEach((request, index) => {
    if (request.count === 0) return;
    open.set(engine.add(request), {
      index,
      text: new StoppedText(tokenizer.decoder({ isContinuation }), { stops: request.stop }),
      tokens: 0,
      depths: 0,
    });
  });
  engine.close();
  for await (const event of engine.events()) {
    const made = open.get(event.request)!;
    if (event.kind !== "token") {
      open.delete(event.request);
      yield event.kind === "error" ? { index: made.index, error: event.error } : finished(made, event.reason);
      continue;
    }
    // A stop string is met before the tokens drawn after it are taken back.
    if (made.text.isStopped) continue;
    made.text.push(event.token.id);
    made.tokens++;
    made.depths += event.token.depth;
    if (made.text.isStopped) engine.cancel(event.request);
    onTokens(engine.statistics);
  }
}

function finished({ index, text, tokens, depths }: OpenText, reason: FinishReason): FinishedText {
  text.finish();
  return {
    index,
    text: text.text,
    // Only texts that met a stop string are cancelled.
    reason: text.isStopped ? "stop" : reason as Exclude<FinishReason, "cancelled">,
    tokens,
    meanDepth: tokens === 0 ? 0 : depths / tokens,
  };
}
