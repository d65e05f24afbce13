/**
 * Whether llama.cpp computes the same on the same file: logits of a given text, token by token, and greedy continuations.
 *
 * By default llama.cpp rounds the input of every product with packed weights to 8 bits, which changes a likeliest token
 * here and there. So it also runs without that: on the Vulkan backend in f32, and on the processor with the file's
 * matrices written out as f32. Its own distance between the two ways stands beside ours.
 */
import { join } from "@std/path";
import { table } from "../../cli/table.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { ConfigError } from "../../model/config.ts";
import { tokenizerFor } from "../../model/tokenizer_source.ts";
import {
  type Agreement,
  compareRows,
  crossEntropy,
  mean,
  type RowDistance,
  summarize,
} from "./llama_cpp_distance.ts";
import { OwnModel } from "./llama_cpp_own.ts";
import { convertModel, LlamaProcess } from "./llama_cpp_process.ts";
import type { LlamaBackend } from "./llama_cpp_worker.ts";
import { note, print } from "./report.ts";

export interface AgreementOptions {
  readonly model: string;
  /** A text file. */
  readonly text: string;
  readonly positions: number;
  /** A folder with node-llama-cpp. */
  readonly folder: string;
  readonly hasVulkan: boolean;
  readonly isJson: boolean;
}

/** A way to run llama.cpp. */
interface Variant {
  readonly name: string;
  readonly backend: LlamaBackend;
  readonly isExact: boolean;
  /** Whether the model's matrices are written out as f32 before. */
  readonly isUnpacked: boolean;
}

const UNPACKED: Variant = { name: "llama.cpp CPU, matrices as f32", backend: "cpu", isExact: true, isUnpacked: true };
const VULKAN: Variant = { name: "llama.cpp Vulkan in f32", backend: "vulkan", isExact: true, isUnpacked: false };
const DEFAULT: Variant = { name: "llama.cpp CPU by default", backend: "cpu", isExact: false, isUnpacked: false };
const OURS = "ours";

/** Tokens that run as one text. */
const WINDOW = 512;

/** Tokens of the text that a greedy continuation follows, and its own. */
const GREEDY_PROMPT = 32;
const GREEDY_TOKENS = 32;

/** What one program made of the text. */
interface Outcome {
  readonly name: string;
  /** Rows of logits. */
  readonly file: string;
  readonly greedy: readonly number[];
}

/** The text as tokens, and the windows that run. */
interface Task {
  readonly text: string;
  readonly ids: readonly number[];
  readonly windows: readonly (readonly number[])[];
  readonly vocabSize: number;
  readonly folder: string;
}

/** Prints a table of distances. */
export async function compareAgreement(device: GpuDevice, options: AgreementOptions): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "mor-llama-cpp-" });
  try {
    const { task, own } = await runOwn(device, { options, folder });
    const variants = options.hasVulkan ? [UNPACKED, VULKAN, DEFAULT] : [UNPACKED, DEFAULT];
    const outcomes = [own];
    let version = "";
    for (const variant of variants) {
      const result = await runVariant(variant, { options, task });
      outcomes.push(result.outcome);
      version = result.version;
    }
    const pairs = [...variants.map(({ name }) => [name, OURS] as const), [UNPACKED.name, DEFAULT.name] as const];
    await report({ device, options, task, version, outcomes, pairs });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function runOwn(
  device: GpuDevice,
  { options, folder }: { options: AgreementOptions; folder: string },
): Promise<{ task: Task; own: Outcome }> {
  using model = await OwnModel.open(device, options.model);
  const { config } = model.source;
  const text = await Deno.readTextFile(options.text);
  const ids = tokenizerFor(await model.source.readTokenizer(), { config }).encode(text);
  const { positions } = options;
  if (ids.length <= positions) {
    throw new ConfigError(
      `Cannot compare: ${options.text} has ${ids.length} tokens, wanted ${positions + 1}; ` +
        "give a longer text or lower --positions",
    );
  }
  const width = Math.min(WINDOW, config.maxPositionEmbeddings);
  const windows: number[][] = [];
  for (let start = 0; start < positions; start += width) {
    windows.push(ids.slice(start, Math.min(start + width, positions)));
  }
  const file = join(folder, OURS);
  for (const window of windows) await model.writeLogits({ ids: window, file });
  const greedy = await model.continueGreedily({ ids: ids.slice(0, GREEDY_PROMPT), count: GREEDY_TOKENS });
  return {
    task: { text, ids, windows, vocabSize: config.vocabSize, folder },
    own: { name: OURS, file, greedy },
  };
}

async function runVariant(
  { name, backend, isExact, isUnpacked }: Variant,
  { options, task: { text, ids, windows, vocabSize, folder } }: { options: AgreementOptions; task: Task },
): Promise<{ outcome: Outcome; version: string }> {
  note(`${name}: ${options.positions} positions`);
  const file = join(folder, name);
  const unpacked = join(folder, "unpacked.gguf");
  if (isUnpacked) await convertModel(options.model, { to: unpacked, format: "f32", folder: options.folder });
  await using llama = await LlamaProcess.start({ folder: options.folder, backend, isExact });
  const model = isUnpacked ? unpacked : await Deno.realPath(options.model);
  const { version } = await llama.ask("open", { model, tokens: WINDOW, isExact });
  const theirs = await llama.ask("tokenize", { text });
  const wrong = ids.findIndex((id, i) => id !== theirs[i]);
  if (wrong >= 0 || theirs.length !== ids.length) {
    const at = wrong < 0 ? ids.length : wrong;
    throw new Error(`llama.cpp has other tokens for the text: at ${at} it has ${theirs[at]}, we have ${ids[at]}`);
  }
  for (const window of windows) await llama.ask("writeLogits", { ids: window, vocabSize, file });
  const greedy = await llama.ask("continueGreedily", { ids: ids.slice(0, GREEDY_PROMPT), count: GREEDY_TOKENS });
  return { outcome: { name, file, greedy }, version };
}

/** Rows of a file, each in the place of the one before. */
async function* rowsOf({ file }: Outcome, { vocabSize }: Task): AsyncGenerator<Float32Array, void> {
  using source = await Deno.open(file);
  const row = new Float32Array(vocabSize);
  const bytes = new Uint8Array(row.buffer);
  for (;;) {
    for (let filled = 0; filled < bytes.length;) {
      const read = await source.read(bytes.subarray(filled));
      if (read === null) return;
      filled += read;
    }
    yield row;
  }
}

async function comparePair(reference: Outcome, { other, task }: { other: Outcome; task: Task }): Promise<Agreement> {
  const rows: RowDistance[] = [];
  const others = rowsOf(other, task);
  for await (const row of rowsOf(reference, task)) {
    rows.push(compareRows(row, (await others.next()).value!));
  }
  return summarize(rows);
}

async function meanCrossEntropy(outcome: Outcome, task: Task): Promise<number> {
  const losses: number[] = [];
  for await (const row of rowsOf(outcome, task)) losses.push(crossEntropy(row, task.ids[losses.length + 1]!));
  return mean(losses);
}

async function report({ device, options, task, version, outcomes, pairs }: {
  device: GpuDevice;
  options: AgreementOptions;
  task: Task;
  version: string;
  outcomes: readonly Outcome[];
  pairs: readonly (readonly [reference: string, other: string])[];
}): Promise<void> {
  const byName = new Map(outcomes.map((outcome) => [outcome.name, outcome]));
  const own = byName.get(OURS)!;
  const distances = [];
  for (const [reference, other] of pairs) {
    const agreement = await comparePair(byName.get(reference)!, { other: byName.get(other)!, task });
    distances.push({ reference, other, ...agreement });
  }
  const programs = [];
  for (const outcome of outcomes) {
    const { name, greedy } = outcome;
    const differs = greedy.findIndex((id, i) => id !== own.greedy[i]);
    programs.push({
      name,
      crossEntropy: await meanCrossEntropy(outcome, task),
      greedyTokensLikeOurs: differs < 0 ? greedy.length : differs,
    });
  }
  const adapter = device.info.description;
  if (options.isJson) {
    const { model, text, positions } = options;
    const tokens = task.ids.length;
    print(JSON.stringify({ model, text, tokens, positions, adapter, nodeLlamaCpp: version, distances, programs }));
    return;
  }
  print(`${options.model} on ${options.positions} positions of ${options.text}; node-llama-cpp ${version}`);
  print(`all ${task.ids.length} tokens of the text are llama.cpp's own\n`);
  print(table([
    ["reference | compared", "same top token", "mean KL", "median KL", "max KL", "max logit difference"],
    ...distances.map(({ reference, other, ...distance }) => [
      `${reference} | ${other}`,
      `${(distance.topAgreement * 100).toFixed(1)} %`,
      distance.meanDivergence.toExponential(1),
      distance.medianDivergence.toExponential(1),
      distance.maxDivergence.toExponential(1),
      distance.maxDifference.toFixed(4),
    ]),
  ]));
  print(table([
    ["program", "cross-entropy", `greedy tokens like ours, of ${GREEDY_TOKENS}`],
    ...programs.map(({ name, crossEntropy, greedyTokensLikeOurs }) => [
      name,
      crossEntropy.toFixed(5),
      `${greedyTokensLikeOurs}`,
    ]),
  ]));
}
