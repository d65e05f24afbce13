/** Texts for many prompts at once: tokens of depth-wise batching, put together and ended where they should. */
import type { GpuDevice } from "../../gpu/device.ts";
import { StopStrings } from "../text/stop_strings.ts";
import type { TokenDecoder, Tokenizer } from "../text/tokenizer.ts";
import type { BatchShape } from "./batch_device.ts";
import { BatchEngine, type BatchStatistics, type FinishReason } from "./batch_engine.ts";
import type { BatchPrompt } from "./batch_prompt.ts";

/** A prompt whose text is wanted; it may be one without tokens. */
export interface TextRequest extends BatchPrompt {
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

/** A text in the making. */
interface OpenText {
  readonly index: number;
  readonly decoder: TokenDecoder;
  readonly stops: StopStrings;
  text: string;
  tokens: number;
  depths: number;
}

/**
 * The texts of requests, as they finish.
 *
 * @param isContinuation Whether a text goes on with its prompt, rather than answer it; see `DecodeOptions`.
 * @param onTokens Told now and then how it goes.
 * @throws RangeError for damaged weights, as `BatchEngine` does for what cannot run.
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
): AsyncGenerator<FinishedText> {
  const nothing = { text: "", reason: "length", tokens: 0, meanDepth: 0 } as const;
  for (const [index, { count }] of requests.entries()) if (count === 0) yield { index, ...nothing };
  if (requests.every(({ count }) => count === 0)) return;
  using engine = new BatchEngine(device, shape);
  const open = new Map<number, OpenText>();
  requests.forEach((request, index) => {
    if (request.count === 0) return;
    open.set(engine.add(request), {
      index,
      decoder: tokenizer.decoder({ isContinuation }),
      stops: new StopStrings(request.stop),
      text: "",
      tokens: 0,
      depths: 0,
    });
  });
  engine.close();
  for await (const event of engine.events()) {
    if (event.kind === "error") throw event.error;
    const text = open.get(event.request)!;
    if (event.kind === "finished") {
      open.delete(event.request);
      yield finished(text, event.reason);
      continue;
    }
    // A stop string is met before the tokens drawn after it are taken back.
    if (text.stops.isFound) continue;
    text.text += text.stops.push(text.decoder.push(event.token.id));
    text.tokens++;
    text.depths += event.token.depth;
    if (text.stops.isFound) engine.cancel(event.request);
    onTokens(engine.statistics);
  }
}

function finished(
  { index, decoder, stops, text, tokens, depths }: OpenText,
  reason: FinishReason,
): FinishedText {
  const meanDepth = tokens === 0 ? 0 : depths / tokens;
  if (stops.isFound) return { index, text, reason: "stop", tokens, meanDepth };
  const end = stops.push(decoder.flush());
  const isStop = stops.isFound;
  return {
    index,
    text: text + end + (isStop ? "" : stops.flush()),
    reason: isStop ? "stop" : reason as Exclude<FinishReason, "cancelled">,
    tokens,
    meanDepth,
  };
}
