/**
 * llama.cpp in a process of its own: reads requests from stdin, a line of JSON each, and answers on stdout likewise.
 * node-llama-cpp comes from the folder of the first argument, the backend is the second: "cpu" or "vulkan".
 */
import { pathToFileURL } from "node:url";
import { answerQuestions, type PeerRequest } from "./peer_protocol.ts";

export type LlamaBackend = "cpu" | "vulkan";

/** What runs. */
export interface LlamaInfo {
  /** node-llama-cpp's version and the release of llama.cpp inside. */
  readonly version: string;
  /** Adapters of the Vulkan backend. */
  readonly adapters: readonly string[];
  readonly threads: number;
}

/** What can be asked for, and what comes back. */
export interface LlamaAnswers {
  describe(): Promise<LlamaInfo>;
  /**
   * Loads a model for `sequences` texts of up to `tokens` tokens, in place of the one before.
   *
   * @param isExact Keeps keys and values as f32; otherwise everything is as llama.cpp has it by default.
   */
  open(wanted: { model: string; tokens: number; sequences: number; isExact: boolean }): Promise<null>;
  /** Special tokens in the text are plain text. */
  tokenize(wanted: { text: string }): Promise<number[]>;
  /** Appends the logits after each token to a file, rows of `vocabSize` f32. */
  writeLogits(wanted: { ids: readonly number[]; vocabSize: number; file: string }): Promise<null>;
  /** The likeliest tokens that follow. */
  continueGreedily(wanted: { ids: readonly number[]; count: number }): Promise<number[]>;
  /** Milliseconds for a prompt of `count` tokens at once, with the logits of the last. */
  timePrompt(wanted: { count: number }): Promise<number>;
  /** Milliseconds for `count` tokens one by one, with the logits of each. */
  timeTokens(wanted: { count: number }): Promise<number>;
  /** Milliseconds for `count` tokens of each of some texts, one of each at a time, with the logits of all. */
  timeTogether(wanted: { count: number; sequences: number }): Promise<number>;
}

type LlamaRequest<Question extends keyof LlamaAnswers> = PeerRequest<LlamaAnswers, Question>;

/** As much of node-llama-cpp as is used here; names that begin with `_` are its own link to llama.cpp. */
interface Llama {
  readonly llamaCppRelease: { readonly release: string };
  getGpuDeviceNames(): Promise<string[]>;
  loadModel(options: { modelPath: string; gpuLayers: "max" | 0 }): Promise<Model>;
  dispose(): Promise<void>;
}
interface Model {
  readonly tokens: { readonly bos: number | null; readonly shouldPrependBosToken: boolean };
  tokenize(text: string): number[];
  createContext(options: Record<string, unknown>): Promise<Context>;
  dispose(): Promise<void>;
}
interface Context {
  readonly _ctx: {
    initBatch(size: number): void;
    addToBatch(sequence: number, position: number, ids: Uint32Array, withLogits: Uint32Array): void;
    decodeBatch(): Promise<void>;
    disposeSequence(sequence: number): void;
  };
  getSequence(): Sequence;
}
interface Sequence {
  clearHistory(): Promise<void>;
  controlledEvaluate(
    input: (number | [id: number, wanted: { generateNext: Record<string, unknown> }])[],
  ): Promise<({ next: { token?: number; logits?: Map<number, number> } } | undefined)[]>;
}

/** Tokens whose logits are asked for at a time: they come as maps, which take 3 MB each. */
const LOGITS_AT_ONCE = 32;

/** One for each core: by default it takes at least four, which get in each other's way on fewer. */
const THREADS = navigator.hardwareConcurrency;

/** Nothing that would filter or change logits. */
const UNFILTERED = { temperature: 0, topK: 0, topP: 1, minP: 0 };

interface Opened {
  readonly model: Model;
  readonly context: Context;
  readonly sequence: Sequence;
}

class LlamaWorker implements LlamaAnswers {
  readonly #llama: Llama;
  readonly #folder: string;
  readonly #backend: LlamaBackend;
  #opened: Opened | null = null;

  constructor(llama: Llama, { folder, backend }: { folder: string; backend: LlamaBackend }) {
    this.#llama = llama;
    this.#folder = folder;
    this.#backend = backend;
  }

  async describe(): Promise<LlamaInfo> {
    const path = `${this.#folder}/node_modules/node-llama-cpp/package.json`;
    const { version } = JSON.parse(await Deno.readTextFile(path));
    return {
      version: `${version} with llama.cpp ${this.#llama.llamaCppRelease.release}`,
      adapters: this.#backend === "vulkan" ? await this.#llama.getGpuDeviceNames() : [],
      threads: THREADS,
    };
  }

  async open({ model: modelPath, tokens, sequences, isExact }: LlamaRequest<"open">[0]): Promise<null> {
    await this.#opened?.model.dispose();
    // It would go on without a word, on the processor.
    if (this.#backend === "vulkan" && (await this.#llama.getGpuDeviceNames()).length === 0) {
      throw new Error("llama.cpp finds no Vulkan adapter; --cpu-only leaves its Vulkan backend out");
    }
    const gpuLayers = this.#backend === "vulkan" ? "max" : 0;
    const model = await this.#llama.loadModel({ modelPath, gpuLayers });
    const context = await model.createContext({
      // One place stays free.
      contextSize: tokens + 1,
      batchSize: Math.max(tokens, sequences),
      sequences,
      threads: THREADS,
      ...(isExact
        ? { experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32", flashAttention: false }
        : { flashAttention: "auto" }),
    });
    this.#opened = { model, context, sequence: context.getSequence() };
    return null;
  }

  tokenize({ text }: LlamaRequest<"tokenize">[0]): Promise<number[]> {
    const { tokens, tokenize } = this.#current.model;
    const start = tokens.shouldPrependBosToken && tokens.bos !== null ? [tokens.bos] : [];
    return Promise.resolve([...start, ...tokenize.call(this.#current.model, text)]);
  }

  async writeLogits({ ids, vocabSize, file }: LlamaRequest<"writeLogits">[0]): Promise<null> {
    const { sequence } = this.#current;
    await sequence.clearHistory();
    using out = await Deno.open(file, { append: true, create: true });
    const writer = out.writable.getWriter();
    for (let start = 0; start < ids.length; start += LOGITS_AT_ONCE) {
      const wanted = { generateNext: { logits: true, options: UNFILTERED } };
      const part = ids.slice(start, start + LOGITS_AT_ONCE);
      for (const result of await sequence.controlledEvaluate(part.map((id) => [id, wanted]))) {
        const logits = result!.next.logits!;
        if (logits.size !== vocabSize) {
          throw new Error(
            `llama.cpp has ${logits.size} logits after a token, the vocabulary ${vocabSize} tokens`,
          );
        }
        const row = new Float32Array(vocabSize);
        for (const [id, logit] of logits) row[id] = logit;
        await writer.write(new Uint8Array(row.buffer));
      }
    }
    writer.releaseLock();
    return null;
  }

  async continueGreedily({ ids, count }: LlamaRequest<"continueGreedily">[0]): Promise<number[]> {
    const { sequence } = this.#current;
    await sequence.clearHistory();
    const wanted = { generateNext: { token: true, options: UNFILTERED } };
    const chosen: number[] = [];
    for (let next = ids; chosen.length < count; next = chosen.slice(-1)) {
      const results = await sequence.controlledEvaluate([...next.slice(0, -1), [next.at(-1)!, wanted]]);
      chosen.push(results.at(-1)!.next.token!);
    }
    return chosen;
  }

  async timePrompt({ count }: LlamaRequest<"timePrompt">[0]): Promise<number> {
    this.#current.context._ctx.disposeSequence(0);
    const start = performance.now();
    await this.#run(0, { count });
    return performance.now() - start;
  }

  async timeTokens({ count }: LlamaRequest<"timeTokens">[0]): Promise<number> {
    this.#current.context._ctx.disposeSequence(0);
    const start = performance.now();
    for (let position = 0; position < count; position++) await this.#run(position, { count: 1 });
    return performance.now() - start;
  }

  async timeTogether({ count, sequences }: LlamaRequest<"timeTogether">[0]): Promise<number> {
    const { _ctx: context } = this.#current.context;
    for (let sequence = 0; sequence < sequences; sequence++) context.disposeSequence(sequence);
    const start = performance.now();
    for (let position = 0; position < count; position++) {
      context.initBatch(sequences);
      for (let sequence = 0; sequence < sequences; sequence++) {
        context.addToBatch(
          sequence,
          position,
          Uint32Array.of(tokenAt(position + sequence)),
          Uint32Array.of(0),
        );
      }
      await context.decodeBatch();
    }
    return performance.now() - start;
  }

  get #current(): Opened {
    if (!this.#opened) throw new Error("no model is open");
    return this.#opened;
  }

  /** Some tokens from a position on, straight to llama.cpp: node-llama-cpp's queue and sampling would count as its time. */
  async #run(position: number, { count }: { count: number }): Promise<void> {
    const { _ctx: context } = this.#current.context;
    const ids = Uint32Array.from({ length: count }, (_, i) => tokenAt(position + i));
    context.initBatch(count);
    context.addToBatch(0, position, ids, Uint32Array.of(count - 1));
    await context.decodeBatch();
  }
}

/** Some token for a place. */
function tokenAt(place: number): number {
  return 32 + (place * 7) % 96;
}

if (import.meta.main) {
  const [folder, backend] = Deno.args as [string, LlamaBackend];
  const entry = pathToFileURL(`${folder}/node_modules/node-llama-cpp/dist/index.js`).href;
  const { getLlama } = await import(entry);
  const llama: Llama = await getLlama({
    gpu: backend === "vulkan" ? "vulkan" : false,
    // Only the binaries that came with the package.
    build: "never",
    skipDownload: true,
    logLevel: "error",
    maxThreads: 0,
  });
  const worker = new LlamaWorker(llama, { folder, backend });
  await answerQuestions<LlamaAnswers>(worker);
  await llama.dispose();
}
