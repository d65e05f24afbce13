/**
 * Whether llama.cpp computes the same on the same file: logits of a given text, token by token, and greedy continuations.
 *
 * By default llama.cpp rounds the input of every product with packed weights to 8 bits, which changes a likeliest token
 * here and there. So it also runs without that: on the Vulkan backend in f32, and on the processor with the file's
 * matrices written out as f32. Its own distance between the two ways stands beside ours.
 */
import { basename, join } from "@std/path";
import { table } from "../../cli/table.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { ConfigError } from "../../model/config.ts";
import { toSnakeCase } from "../../model/snake_case.ts";
import { tokenizerFor } from "../../model/text/tokenizer_source.ts";
import type { Agreement } from "./llama_cpp_distance.ts";
import { compareLogits, meanCrossEntropy } from "./llama_cpp_logits.ts";
import { OwnModel } from "./llama_cpp_own.ts";
import { convertModel, startLlama } from "./llama_cpp_process.ts";
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

const UNPACKED: Variant = {
  name: "llama.cpp CPU, matrices as f32",
  backend: "cpu",
  isExact: true,
  isUnpacked: true,
};
const VULKAN: Variant = {
  name: "llama.cpp Vulkan in f32",
  backend: "vulkan",
  isExact: true,
  isUnpacked: false,
};
const DEFAULT: Variant = {
  name: "llama.cpp CPU by default",
  backend: "cpu",
  isExact: false,
  isUnpacked: false,
};
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
    const theirs: Outcome[] = [];
    let version = "";
    for (const variant of options.hasVulkan ? [UNPACKED, VULKAN, DEFAULT] : [UNPACKED, DEFAULT]) {
      const result = await runVariant(variant, { options, task });
      theirs.push(result.outcome);
      version = result.version;
    }
    const result = await measure({ task, own, theirs });
    report(result, { options, tokens: task.ids.length, adapter: device.info.description, version });
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
  await using llama = await startLlama({ folder: options.folder, backend, isExact });
  const model = isUnpacked ? unpacked : await Deno.realPath(options.model);
  const { version } = await llama.ask("describe");
  await llama.ask("open", { model, tokens: WINDOW, sequences: 1, isExact });
  const theirs = await llama.ask("tokenize", { text });
  const wrong = ids.findIndex((id, i) => id !== theirs[i]);
  if (wrong >= 0 || theirs.length !== ids.length) {
    const at = wrong < 0 ? ids.length : wrong;
    throw new Error(
      `llama.cpp has other tokens for the text: at ${at} it has ${theirs[at]}, we have ${ids[at]}`,
    );
  }
  for (const window of windows) await llama.ask("writeLogits", { ids: window, vocabSize, file });
  const greedy = await llama.ask("continueGreedily", {
    ids: ids.slice(0, GREEDY_PROMPT),
    count: GREEDY_TOKENS,
  });
  return { outcome: { name, file, greedy }, version };
}

/** What is reported. */
interface Result {
  readonly distances: readonly (Agreement & { readonly reference: string; readonly other: string })[];
  readonly programs: readonly {
    readonly name: string;
    /** Nats per token. */
    readonly crossEntropy: number;
    readonly greedyTokensLikeOurs: number;
  }[];
}

/** Each of llama.cpp's outcomes against ours, and its last against its first. */
async function measure(
  { task: { ids, vocabSize }, own, theirs }: { task: Task; own: Outcome; theirs: readonly Outcome[] },
): Promise<Result> {
  const pairs = [...theirs.map((reference) => [reference, own]), [theirs[0]!, theirs.at(-1)!]];
  const distances = [];
  for (const [reference, other] of pairs as [Outcome, Outcome][]) {
    const agreement = await compareLogits(reference.file, { other: other.file, vocabSize });
    distances.push({ reference: reference.name, other: other.name, ...agreement });
  }
  const programs = [];
  for (const { name, file, greedy } of [own, ...theirs]) {
    const differs = greedy.findIndex((id, i) => id !== own.greedy[i]);
    programs.push({
      name,
      crossEntropy: await meanCrossEntropy(file, { ids, vocabSize }),
      greedyTokensLikeOurs: differs < 0 ? greedy.length : differs,
    });
  }
  return { distances, programs };
}

function report(
  { distances, programs }: Result,
  { options: { model, text, positions, isJson }, tokens, adapter, version }: {
    options: AgreementOptions;
    tokens: number;
    adapter: string;
    version: string;
  },
): void {
  const files = { model: basename(model), text: basename(text) };
  if (isJson) {
    const facts = { ...files, tokens, positions, adapter, node_llama_cpp: version };
    print(JSON.stringify({
      ...facts,
      distances: distances.map(toSnakeCase),
      programs: programs.map(toSnakeCase),
    }));
    return;
  }
  print(`${files.model} on ${positions} positions of ${files.text}`);
  print(`ours on ${adapter}; node-llama-cpp ${version}`);
  print(`all ${tokens} tokens of the text are llama.cpp's too`);
  print("by default llama.cpp rounds the inputs of products with packed weights to 8 bits\n");
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
    ["program", "nats per token", `greedy tokens like ours, of ${GREEDY_TOKENS}`],
    ...programs.map(({ name, crossEntropy, greedyTokensLikeOurs }) => [
      name,
      crossEntropy.toFixed(5),
      `${greedyTokensLikeOurs}`,
    ]),
  ]));
}
