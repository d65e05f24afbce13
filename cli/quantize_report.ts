/** What `mor quantize` did and measured, as JSON and as text. */
import { formatBytes } from "../gpu/memory.ts";
import type { PackedFormat } from "../gpu/packed_matrix.ts";
import { elementCount } from "../gpu/tensor.ts";
import type { ComparisonReport } from "../model/comparison_report.ts";
import type { Estimate } from "../model/evaluation_report.ts";
import { bitsPerWeight, type QuantizationReport } from "../model/files/quantize.ts";
import { table } from "./table.ts";

export interface QuantizeResult {
  readonly format: PackedFormat;
  /** Null after a dry run. */
  readonly out: string | null;
  readonly weights: readonly QuantizationReport[];
  /** Null unless a text was given. */
  readonly comparison: ComparisonReport | null;
}

function totals(
  weights: readonly QuantizationReport[],
): { numbers: number; bytes: number; f32Bytes: number } {
  const numbers = weights.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  return { numbers, bytes: weights.reduce((sum, { bytes }) => sum + bytes, 0), f32Bytes: 4 * numbers };
}

/** One object; divergences in nats. */
export function quantizeJson({ format, out, weights, comparison }: QuantizeResult): Record<string, unknown> {
  const { numbers, bytes, f32Bytes } = totals(weights);
  return {
    format,
    out,
    parameters: numbers,
    bytes,
    bytes_f32: f32Bytes,
    bits_per_weight: bitsPerWeight(weights),
    tensors: weights.map(({ name, shape, format, bytes, relativeError, largestError }) => ({
      name,
      shape,
      format,
      bytes,
      relative_error: relativeError,
      largest_error: largestError,
    })),
    ...(comparison && { comparison: comparisonJson(comparison) }),
  };
}

function comparisonJson(report: ComparisonReport): Record<string, unknown> {
  const figure = ({ mean, standardError }: Estimate): Record<string, unknown> => ({
    mean,
    standard_error: standardError,
  });
  return {
    tokens: report.tokens,
    windows: report.windows,
    perplexity_before: figure(report.referencePerplexity),
    perplexity_after: figure(report.perplexity),
    perplexity_change_percent: figure(report.perplexityChangePercent),
    kl_divergence: figure(report.klDivergence),
    top_token_agreement_percent: figure(report.topTokenAgreementPercent),
  };
}

/** A line per tensor, then the sums, then the comparison. */
export function quantizeText({ format, out, weights, comparison }: QuantizeResult): string {
  const { numbers, bytes, f32Bytes } = totals(weights);
  const lines = weights.map(({ name, shape, format, bytes, relativeError, largestError }) => [
    name,
    shape.join(" x "),
    format,
    formatBytes(bytes),
    format === "f32" ? "" : relativeError.toExponential(2),
    format === "f32" ? "" : largestError.toExponential(2),
  ]);
  const kept = weights.filter(({ format, kind }) => format === "f32" && kind === "matrix").length;
  const summary = [
    `${numbers.toLocaleString("en")} weights as ${format}: ${formatBytes(bytes)} of ${
      formatBytes(f32Bytes)
    } as f32, ` +
    `${bitsPerWeight(weights).toFixed(2)} bits per weight`,
    ...(kept > 0 ? [`${kept} matrices stay f32: routers, and rows that are not whole blocks of 32`] : []),
    out === null ? "nothing written (--dry-run)" : `written to ${out}`,
  ];
  return table([["tensor", "shape", "format", "size", "relative error", "largest error"], ...lines]) +
    `\n${summary.join("\n")}\n` + (comparison ? `\n${comparisonText(comparison)}` : "");
}

function comparisonText(report: ComparisonReport): string {
  return table([
    ["perplexity before", estimate(report.referencePerplexity, 3)],
    ["perplexity after", estimate(report.perplexity, 3)],
    ["change", `${estimate(report.perplexityChangePercent, 3)} %`],
    ["KL divergence", `${estimate(report.klDivergence, 5)} nats`],
    ["same likeliest token", `${estimate(report.topTokenAgreementPercent, 2)} %`],
    ["tokens", `${report.tokens} in ${report.windows} windows`],
  ]);
}

function estimate({ mean, standardError }: Estimate, digits: number): string {
  const error = standardError === null ? "" : ` +- ${standardError.toFixed(digits)}`;
  return mean.toFixed(digits) + error;
}
