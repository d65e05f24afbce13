/** `mor generate --prompts`: texts for the prompts of a file, many at a time. */
import type { GpuDevice } from "../gpu/device.ts";
import { GpuError } from "../gpu/errors.ts";
import type { KvDtype } from "../gpu/kernels/attention_heads.ts";
import { formatBytes } from "../gpu/memory.ts";
import { ticksPerRead } from "../model/batching/batch_engine.ts";
import type { BatchStatistics } from "../model/batching/batch_events.ts";
import { batchSize } from "../model/batching/batch_size.ts";
import { generateTexts, type TextRequest } from "../model/batching/batch_texts.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import { tokenRoom } from "../model/generate.ts";
import type { ModelWeights } from "../model/model_weights.ts";
import type { SamplingOptions } from "../model/sampling.ts";
import { DataError } from "../model/text/documents.ts";
import { type PromptLine, readPromptLines } from "../model/text/prompt_lines.ts";
import { type DoneResults, readResults, ResultFile, sortResults } from "../model/text/result_lines.ts";
import type { Tokenizer } from "../model/text/tokenizer.ts";
import { InterruptedError, withMore } from "./errors.ts";
import { formatDuration, openProgress } from "./progress.ts";
import { type PlannedText, ResultOrder } from "./result_order.ts";
import type { Terminal } from "./terminal.ts";
import { WorkLock } from "./work_lock.ts";

/** Rows of the block unless told: a tile of a software adapter's products. */
export const BATCH_SIZE = 64;

const MEBIBYTE = 2 ** 20;

/** What decides the texts, and where they go. */
export interface PromptsFlags extends SamplingOptions {
  readonly prompts: string;
  readonly isChat: boolean;
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

/** Keeps other runs off the file of results from before it is read; it need not be there yet. */
export async function lockResults({ out }: PromptsFlags, terminal: Terminal): Promise<WorkLock | null> {
  if (out === undefined) return null;
  const lock = new WorkLock(out, { words: { verb: "write", doing: "writing it" }, terminal });
  await lock.takeIfThere();
  return lock;
}

/** The texts that are to be made, and the file of those that are done. */
export interface PromptsPlan {
  readonly texts: readonly PlannedText[];
  /** Those of all prompts: a run that goes on has the batch that it began with, whose sums are the same to the bit. */
  readonly allRequests: readonly TextRequest[];
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
  const all = lines.map((line) =>
    planText(line, { flags: { ...flags, seed }, prompt: encode(line), config })
  );
  for (const { index, seed } of done) {
    const wanted = all[index]!.request.sampling.seed;
    if (seed === wanted) continue;
    throw new DataError(
      `Cannot go on with ${flags.out}: its result of prompt ${
        index + 1
      } has the seed ${seed}, not ${wanted}; ` +
        "leave --seed away to go on with the one that it began with",
    );
  }
  const isDone = new Set(done.map(({ index }) => index));
  const texts = all.filter(({ line: { index } }) => !isDone.has(index));
  if (isDone.size > 0) terminal.note(`${isDone.size} of ${lines.length} texts are there already`);
  if (results && results.cut > 0) terminal.note("an unfinished result at the file's end is made anew");
  return { texts, allRequests: all.map(({ request }) => request), results };
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
  if (line.system !== undefined && !flags.isChat) {
    throw new ConfigError(`Cannot generate from ${where}: its "system" needs --chat`);
  }
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
 * Generates the texts and writes a line for each. Into a file they go as they finish, so that a kill loses none; it is
 * put in order once it is whole.
 *
 * @throws InterruptedError after Ctrl-C, with what is done written; MemoryError when keys and values do not fit;
 * RangeError after the other texts for those that could not be made.
 */
export async function generatePrompts(
  device: GpuDevice,
  model: { readonly config: ModelConfig; readonly weights: ModelWeights; readonly tokenizer: Tokenizer },
  { plan: { texts, allRequests, results }, flags, kvDtype, lock, terminal }: {
    plan: PromptsPlan;
    flags: PromptsFlags;
    kvDtype: KvDtype;
    lock: WorkLock | null;
    terminal: Terminal;
  },
): Promise<void> {
  const { config, weights, tokenizer } = model;
  const requests = texts.map(({ request }) => request);
  const kvBytes = flags.kvMemory === undefined ? null : flags.kvMemory * MEBIBYTE;
  const size = batchSize(device, config, { requests: allRequests, rows: flags.batchSize, kvDtype, kvBytes });
  terminal.note(
    `batch: ${size.rows} rows, ${size.slots} texts at a time, ${
      formatBytes(size.kvBytes)
    } for keys and values`,
  );
  // Another run may have made the file since.
  if (await lock?.takeFile()) await readResults(flags.out!, { resume: false });
  const file = results && await ResultFile.open(flags.out!, results);
  const order = new ResultOrder(texts, { inOrder: flags.inOrder && !file });
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
    const ticks = await ticksPerRead(device);
    const shape = { config, weights, ...size, endTokens: tokenizer.endTokens, ticks };
    const isContinuation = !flags.isChat;
    const made = generateTexts(device, shape, { requests, tokenizer, isContinuation, onTokens });
    for await (const text of made) {
      if ("error" in text) {
        const { index } = texts[text.index]!.line;
        terminal.note(`prompt ${index + 1} of ${flags.prompts}: ${text.error.message}`);
      }
      for (const result of order.add(text)) {
        if (file) await file.write(result);
        else terminal.out(JSON.stringify(result) + "\n");
      }
      if (!file && !terminal.hasReader()) return;
    }
  } catch (error) {
    if (!(error instanceof GpuError && file)) throw error;
    const written = `${order.written} of ${texts.length} texts are written; --resume goes on`;
    throw new GpuError(error.kind, withMore(error.message, written), { cause: error });
  } finally {
    Deno.removeSignalListener("SIGINT", onSignal);
    await progress.stop();
    await file?.close();
  }
  await finishPrompts(flags);
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
  if (order.failed > 0) {
    const goOn = file ? "; --resume tries them again" : "";
    throw new RangeError(`Cannot make ${order.failed} of ${texts.length} texts, see above${goOn}`);
  }
}

/** What is left to do once all results are written. */
export async function finishPrompts({ out, inOrder }: PromptsFlags): Promise<void> {
  if (out !== undefined && inOrder) await sortResults(out);
}

function speedOf(
  { tokens, depths, occupancy }: BatchStatistics,
  { seconds, config: { recursion } }: { seconds: number; config: ModelConfig },
): string {
  const parts = [
    `${(tokens / seconds).toFixed(0)} tokens/s`,
    `${(100 * occupancy).toFixed(0)} % of rows in use`,
  ];
  if (recursion && tokens > 0) parts.push(`mean depth ${(depths / tokens).toFixed(2)}`);
  return parts.join(", ");
}
