/** Loading a model as the program does, and what must be true of it however its files are damaged. */
import { assert, assertEquals, assertLess, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { planAllocator } from "../../gpu/memory.ts";
import { chatTemplate } from "../../model/text/chat_template.ts";
import { openCheckpoint } from "../../model/files/checkpoint_source.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { planWeights } from "../../model/load_weights.ts";
import { parameterTable } from "../../model/parameters.ts";
import { CheckpointError } from "../../model/files/safetensors.ts";
import { tokenizerFor } from "../../model/text/tokenizer_source.ts";
import { readWeight } from "../../model/files/weight_file.ts";
import type { DamageModel, Files } from "./damage_models.ts";
import { isolateBytes } from "./memory.ts";
import { trueModel, type TrueTensor, trueTokenizer } from "./damage_truth.ts";

/** What a model does to texts. */
export interface LoadedTokenizer {
  readonly vocabSize: number;
  readonly endTokens: readonly number[];
  /** Of `TEXTS`. */
  readonly ids: readonly (readonly number[])[];
  readonly decoded: readonly string[];
  /** A conversation as text; null without a chat template. */
  readonly chat: string | null;
}

/** Everything that a command reads of a model. */
export interface LoadedModel {
  readonly config: ModelConfig;
  readonly weights: ReadonlyMap<string, TrueTensor>;
  readonly tokenizer: LoadedTokenizer;
}

const TEXTS = ["", "Call me Ishmael.", " 1234  é 世界 👍🏽\n<|im_end|></s>"];

/** Bounds for a model of a few KB. */
const MAX_MS = 2000;
const MAX_BYTES = 2 ** 30;

/** Loads a model; throws as the program does. */
export async function loadModel(path: string): Promise<LoadedModel> {
  const source = await openCheckpoint(path);
  const { config } = source;
  const weights = new Map<string, TrueTensor>();
  {
    using file = await source.openWeights();
    planWeights(planAllocator(), { config, file, choice: "auto" });
    for (const { name, shape } of parameterTable(config)) {
      weights.set(name, { shape, numbers: await readWeight(file, { name, shape }) });
    }
  }
  const files = await source.readTokenizer();
  const tokenizer = tokenizerFor(files, { config });
  const template = files === "byte" ? null : chatTemplate(files);
  const { vocabSize, endTokens } = tokenizer;
  const ids = TEXTS.map((text) => tokenizer.encode(text));
  const decoded = ids.map((tokens) => {
    const decoder = tokenizer.decoder();
    return tokens.map((id) => decoder.push(id)).join("") + decoder.flush();
  });
  const chat = template?.([{ role: "user", content: "Hello" }], { now: new Date(0) }) ?? null;
  return { config, weights, tokenizer: { vocabSize, endTokens, ids, decoded, chat } };
}

/** Puts files into a folder. */
export async function writeFiles(folder: string, files: Files): Promise<void> {
  for (const [name, bytes] of Object.entries(files)) await Deno.writeFile(join(folder, name), bytes);
}

export interface Outcome {
  /** Null if the model cannot be loaded. */
  readonly loaded: LoadedModel | null;
  /** Why it cannot be loaded; "" if it can. */
  readonly message: string;
  readonly ms: number;
}

/**
 * Loads a damaged model from a folder for it; fails unless it is refused in one line or loaded as its files say, soon
 * and in little memory.
 *
 * @param original What the model does to texts when it is not damaged.
 */
export async function trial(
  { model: { entry, files: originalFiles }, files, label }: {
    model: DamageModel;
    files: Files;
    label: string;
  },
  { folder, original }: { folder: string; original: LoadedTokenizer },
): Promise<Outcome> {
  await writeFiles(folder, files);
  async function attempt(): Promise<Outcome> {
    const start = performance.now();
    let loaded: LoadedModel | null = null;
    let message = "";
    try {
      loaded = await loadModel(join(folder, entry));
    } catch (error) {
      const isClear = error instanceof CheckpointError || error instanceof ConfigError;
      assert(isClear, `${label}: ${(error as Error).stack}`);
      ({ message } = error);
      assertMatch(message, /^\P{Cc}{20,1200}$/u, label);
      const isNamed = [folder, ...Object.keys(files)].some((name) => error.message.includes(name));
      assert(isNamed, `${label}: no file is named by ${message}`);
    }
    return { loaded, message, ms: performance.now() - start };
  }
  let outcome = await attempt();
  // Something else may have kept the machine busy: what is slow is slow twice.
  if (outcome.ms > MAX_MS) outcome = await attempt();
  const { loaded, ms } = outcome;
  assertLess(ms, MAX_MS, `${label}: ${ms} ms`);
  assertLess(isolateBytes(), MAX_BYTES, label);
  if (loaded) {
    assertTrueModel(loaded, { files, label });
    assertTrueTokenizer(loaded.tokenizer, { files, originalFiles, original, label });
  }
  return outcome;
}

/** Fails unless configuration and weights are what the files say, and nothing that they hold is left out. */
function assertTrueModel(
  { config, weights }: LoadedModel,
  { files, label }: { files: Files; label: string },
): void {
  const truth = trueModel(files);
  const { extra: _, ...fields } = config;
  assertEquals(simplified(fields), simplified(truth.config), label);
  for (const [name, { shape, numbers }] of weights) {
    const wanted = truth.tensors.get(name);
    assertEquals(shape, wanted?.shape, `${label}: ${name}`);
    assert(isSame(numbers, wanted!.numbers), `${label}: ${name} has other numbers`);
  }
  const embedding = weights.get("model.embed_tokens.weight")!;
  for (const [name, { numbers }] of truth.tensors) {
    const isTied = name === "lm_head.weight" && isSame(numbers, embedding.numbers);
    assert(
      weights.has(name) || isTied || name.endsWith("rotary_emb.inv_freq"),
      `${label}: ${name} is left out`,
    );
  }
}

/** Fails unless a tokenizer has the tokens that the files say, and does the same as before if they say the same. */
function assertTrueTokenizer(
  tokenizer: LoadedTokenizer,
  { files, originalFiles, original, label }: {
    files: Files;
    originalFiles: Files;
    original: LoadedTokenizer;
    label: string;
  },
): void {
  const [before, after] = [originalFiles, files].map(trueTokenizer);
  assertEquals(tokenizer.vocabSize, after!.vocabSize, label);
  const strangers = [...tokenizer.endTokens, ...tokenizer.ids.flat()].filter((id) =>
    !(id >= 0 && id < after!.vocabSize)
  );
  assertEquals(strangers, [], label);
  if (after!.facts === before!.facts) assertEquals(tokenizer, original, label);
}

/** With every number as f32. */
function simplified(value: unknown): unknown {
  const rounded = (_: string, inner: unknown): unknown =>
    typeof inner === "number" ? Math.fround(inner) : inner;
  return JSON.parse(JSON.stringify(value, rounded));
}

/** Bit for bit: numbers of damaged files may be NaN. */
function isSame(a: Float32Array, b: Float32Array): boolean {
  const [bitsA, bitsB] = [a, b].map(({ buffer }) => new Uint32Array(buffer));
  return bitsA!.length === bitsB!.length && bitsA!.every((bits, i) => bits === bitsB![i]);
}
