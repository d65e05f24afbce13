/** What fewer bits cost and bring: `deno task bench quantization MODEL TEXT [TOKENS]`, a row for each format. */
import type { GpuDevice } from "../../gpu/device.ts";
import { formatBytes } from "../../gpu/memory.ts";
import { type CheckpointSource, openCheckpoint } from "../../model/files/checkpoint_source.ts";
import { compareText } from "../../model/compare_text.ts";
import { type ComparisonReport, comparisonReport } from "../../model/comparison_report.ts";
import { readTokens } from "../../model/text/dataset.ts";
import { Decoder } from "../../model/decoder.ts";
import type { Estimate } from "../../model/evaluation_report.ts";
import { fillWeights, MATRIX_FORMATS, type MatrixFormat, planWeights } from "../../model/load_weights.ts";
import type { ModelWeights } from "../../model/model_weights.ts";
import { parameterCount } from "../../model/parameters.ts";
import { bitsPerWeight, quantizationPlan } from "../../model/files/quantize.ts";
import { tokenizerFor } from "../../model/text/tokenizer_source.ts";
import { median, print, REPEATS } from "./report.ts";

const PROMPT = 128;
const STEPS = 32;
const SAMPLING = { temperature: 0.8, topK: 40, topP: 0.95, minP: 0, repeatPenalty: 1, seed: 1 };

/** Tokens of the text that are predicted, unless told. */
const TOKENS = 8192;
const LONGEST_WINDOW = 512;

/** A format's figures. */
interface Row {
  readonly format: MatrixFormat;
  readonly weights: ModelWeights;
  /** Null for the reference. */
  readonly comparison: ComparisonReport | null;
  readonly decode: number[];
  readonly prefill: number[];
}

async function load(
  device: GpuDevice,
  { source, format }: { source: CheckpointSource; format: MatrixFormat },
): Promise<ModelWeights> {
  using file = await source.openWeights();
  const planned = planWeights(device, { config: source.config, file, choice: format });
  await fillWeights(device, planned, { file });
  return planned.weights;
}

/** Prompt and decoding speeds of every format in turn, so that they meet the same moods of the machine. */
async function measure(
  device: GpuDevice,
  { source: { config }, rows, ids }: {
    source: CheckpointSource;
    rows: readonly Row[];
    ids: readonly number[];
  },
): Promise<void> {
  const prompt = ids.slice(0, PROMPT);
  const decoders = rows.map(({ weights }) =>
    new Decoder(device, { config, weights, slots: 1, capacity: PROMPT + STEPS })
  );
  // The first round compiles the kernels.
  for (let repeat = -1; repeat < REPEATS; repeat++) {
    for (const [i, decoder] of decoders.entries()) {
      const start = performance.now();
      await decoder.start(0, { prompt, sampling: SAMPLING });
      const prefilled = performance.now();
      for (let step = 0; step < STEPS; step++) await decoder.step([0]);
      if (repeat < 0) continue;
      rows[i]!.prefill.push((PROMPT * 1000) / (prefilled - start));
      rows[i]!.decode.push((STEPS * 1000) / (performance.now() - prefilled));
    }
  }
  for (const decoder of decoders) decoder[Symbol.dispose]();
}

function estimate({ mean, standardError }: Estimate, digits: number): string {
  return `${mean.toFixed(digits)} +- ${(standardError ?? NaN).toFixed(digits)}`;
}

function printRows(rows: readonly Row[], { source: { config } }: { source: CheckpointSource }): void {
  print(
    "| format | size | bits/weight | perplexity | change | KL, nats | same top token | decode | prefill |",
  );
  print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  const baseline = median(rows[0]!.decode);
  for (const { format, comparison, decode, prefill } of rows) {
    const plan = format === "f32" ? null : quantizationPlan(config, { format });
    const bytes = plan ? plan.reduce((sum, weight) => sum + weight.bytes, 0) : 4 * parameterCount(config);
    const reference = rows.find((row) => row.comparison)!.comparison!;
    const cells = [
      format,
      formatBytes(bytes),
      (plan ? bitsPerWeight(plan) : 32).toFixed(2),
      estimate(comparison ? comparison.perplexity : reference.referencePerplexity, 3),
      comparison ? `${estimate(comparison.perplexityChangePercent, 2)} %` : "",
      comparison ? estimate(comparison.klDivergence, 5) : "",
      comparison ? `${estimate(comparison.topTokenAgreementPercent, 2)} %` : "",
      `${median(decode).toFixed(1)} (${(median(decode) / baseline).toFixed(2)}x)`,
      median(prefill).toFixed(0),
    ];
    print(`| ${cells.join(" | ")} |`);
  }
}

/** Compares the formats of a model's weights with f32 on a text, and their speeds. */
export async function benchQuantization(device: GpuDevice, args: readonly string[]): Promise<void> {
  const [path, textPath, count = String(TOKENS)] = args;
  if (path === undefined || textPath === undefined) {
    print("usage: deno task bench quantization MODEL TEXT [TOKENS]");
    return;
  }
  const source = await openCheckpoint(path);
  const { config } = source;
  const tokenizer = tokenizerFor(await source.readTokenizer(), { config });
  const text = Uint32Array.from(await readTokens([textPath], { tokenizer, textField: "text" }));
  const tokens = text.subarray(0, Number(count) + 1);
  const sequenceLength = Math.min(LONGEST_WINDOW, config.maxPositionEmbeddings);
  const reference = { config, weights: await load(device, { source, format: "f32" }) };
  const rows: Row[] = [];
  for (const format of MATRIX_FORMATS) {
    const weights = format === "f32" ? reference.weights : await load(device, { source, format });
    const comparison = format === "f32" ? null : comparisonReport(
      await Array.fromAsync(compareText(device, {
        reference,
        model: { config, weights },
        tokens,
        shape: { batchSize: 1, sequenceLength },
      })),
    );
    rows.push({ format, weights, comparison, decode: [], prefill: [] });
  }
  await measure(device, { source, rows, ids: Array.from(tokens) });
  print(
    `${path}, ${
      tokens.length - 1
    } tokens of ${textPath} in windows of ${sequenceLength}; speeds in tokens/s, a prompt ` +
      `of ${PROMPT} and ${STEPS} tokens after it, medians of ${REPEATS}, all formats in turn`,
  );
  printRows(rows, { source });
}
