/** `mor generate --prompts`: texts for the prompts of a file, many at a time. */
import type { GpuDevice } from "../gpu/device.ts";
import type { KvDtype } from "../gpu/kernels/attention_heads.ts";
import { formatBytes } from "../gpu/memory.ts";
import { type BatchStatistics, ticksPerRead } from "../model/batching/batch_engine.ts";
import { batchSize } from "../model/batching/batch_size.ts";
import { type FinishedText, generateTexts, type TextRequest } from "../model/batching/batch_texts.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import { tokenRoom } from "../model/generate.ts";
import type { ModelWeights } from "../model/model_weights.ts";
import type { SamplingOptions } from "../model/sampling.ts";
import { DataError } from "../model/text/documents.ts";
import { type PromptLine, readPromptLines } from "../model/text/prompt_lines.ts";
import { type DoneResults, readResults, ResultFile } from "../model/text/result_lines.ts";
import type { Tokenizer } from "../model/text/tokenizer.ts";
import { InterruptedError } from "./errors.ts";
import { formatDuration, openProgress } from "./progress.ts";
import type { Terminal } from "./terminal.ts";

/** Rows of the block unless told: a tile of a software adapter's products. */
export const BATCH_SIZE = 64;

const MEBIBYTE = 2 ** 20;

/** What decides the texts, and where they go. */
export interface PromptsFlags extends SamplingOptions {
  readonly prompts: string;
  readonly out: string | undefined;
  readonly resume: boolean;
  readonly inOrder: boolean;
  readonly count: number;
  readonly stop: readonly string[];
  readonly seed: number | undefined;
  readonly batchSize: number;
  /** MiB; as much as the texts are expected to need unless told. */
  readonly kvMemory: number | undefined;
}

/** A prompt with everything that decides its text. */
interface PlannedText {
  readonly line: PromptLine;
  readonly request: TextRequest;
  /** Whether the model's positions end its text before its count does. */
  readonly isShort: boolean;
}

/** The texts that are to be made, and the file of those that are done. */
export interface PromptsPlan {
  readonly texts: readonly PlannedText[];
  readonly results: DoneResults | null;
}

/**
 * Reads the prompts, and what there is of their results, before anything that takes time; writes nothing.
 *
 * @param encode The tokens of a prompt.
 * @throws DataError for files that cannot be used; ConfigError for a prompt that cannot be continued.
 */
export async function planPrompts(
  flags: PromptsFlags,
  { config, encode, terminal }: {
    config: ModelConfig;
    encode: (line: PromptLine) => readonly number[];
    terminal: Terminal;
  },
): Promise<PromptsPlan> {
  const lines = await readPromptLines(flags.prompts);
  const results = flags.out === undefined ? null : await readResults(flags.out, flags);
  const done = results?.done ?? [];
  for (const { index, prompt } of done) {
    if (lines[index]?.prompt === prompt) continue;
    throw new DataError(
      `Cannot go on with ${flags.out}: it has a result of other prompts than ${flags.prompts}`,
    );
  }
  const seed = flags.seed ?? seedOf(done, lines) ?? crypto.getRandomValues(new Uint32Array(1))[0]!;
  terminal.note(`seed: ${seed}`);
  const isDone = new Set(done.map(({ index }) => index));
  const texts = lines.filter(({ index }) => !isDone.has(index)).map((line) =>
    planText(line, { flags: { ...flags, seed }, prompt: encode(line), config })
  );
  if (isDone.size > 0) terminal.note(`${isDone.size} of ${lines.length} texts are there already`);
  if (results && results.cut > 0) terminal.note("an unfinished result at the file's end is made anew");
  return { texts, results };
}

/** The seed of the run that made results: prompt i's is i more, unless its line has one. */
function seedOf(done: DoneResults["done"], lines: readonly PromptLine[]): number | null {
  const known = done.find(({ index }) => lines[index]!.seed === undefined);
  return known ? (known.seed - known.index + 2 ** 32) % 2 ** 32 : null;
}

function planText(
  line: PromptLine,
  { flags, prompt, config }: {
    flags: PromptsFlags & { seed: number };
    prompt: readonly number[];
    config: ModelConfig;
  },
): PlannedText {
  const where = `prompt ${line.index + 1} of ${flags.prompts}`;
  if (prompt.length === 0) throw new ConfigError(`Cannot generate from ${where}: it is empty`);
  const { maxPositionEmbeddings } = config;
  if (prompt.length > maxPositionEmbeddings) {
    throw new ConfigError(
      `Cannot generate from ${where}: it has ${prompt.length} tokens, the model ${maxPositionEmbeddings} ` +
        "positions (max_position_embeddings); give a shorter prompt",
    );
  }
  const wanted = line.count ?? flags.count;
  const count = Math.min(wanted, tokenRoom(config, { prompt }));
  const sampling = {
    temperature: line.temperature ?? flags.temperature,
    topK: line.topK ?? flags.topK,
    topP: line.topP ?? flags.topP,
    minP: line.minP ?? flags.minP,
    repeatPenalty: line.repeatPenalty ?? flags.repeatPenalty,
    seed: line.seed ?? (flags.seed + line.index) % 2 ** 32,
  };
  const stop = line.stop === undefined ? flags.stop : [line.stop].flat();
  return { line, request: { prompt, count, sampling, stop }, isShort: count < wanted };
}

/**
 * Generates the texts and writes a line for each, as they finish or in the order of their prompts.
 *
 * @throws InterruptedError after Ctrl-C, with what is done written; MemoryError when keys and values do not fit.
 */
export async function generatePrompts(
  device: GpuDevice,
  model: { readonly config: ModelConfig; readonly weights: ModelWeights; readonly tokenizer: Tokenizer },
  { plan: { texts, results }, flags, kvDtype, isChat, terminal }: {
    plan: PromptsPlan;
    flags: PromptsFlags;
    kvDtype: KvDtype;
    isChat: boolean;
    terminal: Terminal;
  },
): Promise<void> {
  const { config, weights, tokenizer } = model;
  const requests = texts.map(({ request }) => request);
  const kvBytes = flags.kvMemory === undefined ? null : flags.kvMemory * MEBIBYTE;
  const { available } = device.memory;
  const size = batchSize(config, { requests, rows: flags.batchSize, kvDtype, kvBytes, available });
  terminal.note(
    `batch: ${size.rows} rows, ${size.slots} texts at a time, ${
      formatBytes(size.kvBytes)
    } for keys and values`,
  );
  const file = results && await ResultFile.open(flags.out!, results);
  const order = new ResultOrder(texts, flags);
  const progress = openProgress(terminal, { max: texts.length, value: 0 });
  const started = performance.now();
  let isInterrupted = false;
  let speed = "";
  function onTokens(statistics: BatchStatistics): void {
    speed = speedOf(statistics, { seconds: (performance.now() - started) / 1000, config });
    progress.update(order.count, speed);
    if (!isInterrupted) return;
    const goOn = file ? "; --resume goes on" : "";
    throw new InterruptedError(`interrupted with ${order.written} of ${texts.length} texts written${goOn}`);
  }
  const onSignal = (): void => {
    isInterrupted = true;
  };
  Deno.addSignalListener("SIGINT", onSignal);
  try {
    const shape = { config, weights, ...size, endTokens: tokenizer.endTokens, ticks: ticksPerRead(device) };
    const finished = generateTexts(device, shape, { requests, tokenizer, isContinuation: !isChat, onTokens });
    for await (const text of finished) {
      for (const result of order.add(text)) {
        if (file) await file.write(result);
        else terminal.out(JSON.stringify(result) + "\n");
      }
    }
  } finally {
    Deno.removeSignalListener("SIGINT", onSignal);
    await progress.stop();
    await file?.close();
  }
  terminal.note(
    `${texts.length} texts in ${formatDuration((performance.now() - started) / 1000)}${
      speed && `, ${speed}`
    }`,
  );
  if (order.short > 0) {
    terminal.note(
      `${order.short} texts end where the model's ${config.maxPositionEmbeddings} positions do ` +
        "(max_position_embeddings)",
    );
  }
}

function speedOf(
  { tokens, occupancy, blockRows }: BatchStatistics,
  { seconds, config: { recursion } }: { seconds: number; config: ModelConfig },
): string {
  const parts = [
    `${(tokens / seconds).toFixed(0)} tokens/s`,
    `${(100 * occupancy).toFixed(0)} % of rows in use`,
  ];
  if (recursion && tokens > 0) parts.push(`mean depth ${(blockRows / tokens).toFixed(2)}`);
  return parts.join(", ");
}

/** Results in the order in which they are written. */
class ResultOrder {
  readonly #texts: readonly PlannedText[];
  readonly #inOrder: boolean;
  readonly #held = new Map<number, Record<string, unknown>>();
  /** Texts that are done, those that are written, and those that the model's positions ended. */
  count = 0;
  written = 0;
  short = 0;

  constructor(texts: readonly PlannedText[], { inOrder }: { inOrder: boolean }) {
    this.#texts = texts;
    this.#inOrder = inOrder;
  }

  /** The results whose turn it is now that a text is done. */
  *add(text: FinishedText): Generator<Record<string, unknown>> {
    this.count++;
    const planned = this.#texts[text.index]!;
    if (planned.isShort && text.reason === "length") this.short++;
    this.#held.set(this.#inOrder ? text.index : this.written, resultOf(planned, text));
    for (let next = this.#held.get(this.written); next; next = this.#held.get(this.written)) {
      this.#held.delete(this.written++);
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
