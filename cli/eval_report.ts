/** What `mor eval` measured, as JSON and as a table. */
import { bitsPerByte, type Estimate, type EvaluationReport } from "../model/evaluation_report.ts";
import type { RouterHealth } from "../model/router_health.ts";
import type { Routing } from "../model/selection.ts";
import { table } from "./table.ts";

/** One routing's figures. */
export interface RoutingResult {
  readonly report: EvaluationReport;
  /** Of depths 1..R; null unless token choice, which has to learn it. */
  readonly balance: Pick<RouterHealth, "maxViolation" | "entropy"> | null;
  readonly tokensPerSecond: number;
}

/** Everything that an evaluation measured. */
export interface EvalResult {
  readonly routings: ReadonlyMap<Routing, RoutingResult>;
  /** Whether the model's routings are two rules; if not, one run stands for both. */
  readonly routingsDiffer: boolean;
  /** Loss by top-k minus loss by causal routing; null unless both were run. */
  readonly gap: Estimate | null;
  readonly sequenceLength: number;
  readonly bytesPerToken: number;
}

/** One object; nats unless a name says bits, fractions from 0 to 1, lists by depth from 0 recursion steps. */
export function evalJson(result: EvalResult): Record<string, unknown> {
  const { routings, routingsDiffer, gap, sequenceLength, bytesPerToken } = result;
  const [{ report }] = [...routings.values()] as [RoutingResult];
  const agreement = routings.get("top-k")?.report.agreement;
  return {
    tokens: report.tokens,
    windows: report.windows.length,
    sequence_length: sequenceLength,
    bytes_per_token: bytesPerToken,
    routings_differ: routingsDiffer,
    routings: Object.fromEntries(
      [...routings].map(([routing, column]) => [routing, routingJson(column, result)]),
    ),
    ...(agreement && { agreement: { overall: agreement.overall, by_step: agreement.byStep } }),
    ...(gap && { gap: { loss: gap.mean, standard_error: gap.standardError } }),
  };
}

function routingJson(
  { report: { loss, perplexity, depths }, balance, tokensPerSecond }: RoutingResult,
  { bytesPerToken }: EvalResult,
): Record<string, unknown> {
  const bits = bitsPerByte(loss, { bytesPerToken });
  return {
    loss: loss.mean,
    standard_error: loss.standardError,
    perplexity,
    bits_per_byte: bits.mean,
    bits_per_byte_standard_error: bits.standardError,
    ...(depths && {
      tokens_per_depth: depths.tokens,
      depth_fractions: depths.fractions,
      mean_depth: depths.mean,
      loss_per_depth: depths.losses,
    }),
    ...(balance && { max_violation: balance.maxViolation, depth_entropy: balance.entropy }),
    tokens_per_second: Math.round(tokensPerSecond),
  };
}

/** A line per figure, a column per routing, then what concerns both. */
export function evalTable(result: EvalResult): string {
  const { routings, sequenceLength, bytesPerToken } = result;
  const columns = [...routings.values()];
  const [{ report: { tokens, windows } }] = columns as [RoutingResult];
  const rows: string[][] = [["", ...routings.keys()]];
  function row(name: string, value: (column: RoutingResult) => string): void {
    rows.push([name, ...columns.map(value)]);
  }
  row("loss", ({ report }) => estimate(report.loss));
  row("perplexity", ({ report }) => report.perplexity.toFixed(3));
  row("bits per byte", ({ report }) => estimate(bitsPerByte(report.loss, { bytesPerToken })));
  for (const depth of metDepths(columns)) {
    row(`depth ${depth}`, ({ report: { depths } }) => {
      const count = depths!.tokens[depth]!;
      return `${percent(depths!.fractions[depth]!)} (${count.toLocaleString("en")})`;
    });
    row(`loss at depth ${depth}`, ({ report: { depths } }) => depths!.losses[depth]?.toFixed(4) ?? "-");
  }
  if (columns[0]!.report.depths) row("mean depth", ({ report }) => report.depths!.mean.toFixed(3));
  if (columns[0]!.balance) {
    row("MaxVio", ({ balance }) => balance!.maxViolation.toFixed(3));
    row("depth entropy", ({ balance }) => balance!.entropy.toFixed(3));
  }
  row("tokens/s", ({ tokensPerSecond }) => Math.round(tokensPerSecond).toLocaleString("en"));
  const text =
    `${tokens.toLocaleString("en")} tokens predicted, ${bytesPerToken.toFixed(2)} bytes per token; ` +
    `windows of up to ${sequenceLength}: ${windows.length.toLocaleString("en")}`;
  return lines([["text", text]]) + table(rows, { firstWidth: NAME_WIDTH - 2 }) + lines(remarks(result));
}

/** What is true of the routings together. */
function remarks({ routings, routingsDiffer, gap }: EvalResult): [string, string][] {
  const agreement = routings.get("top-k")?.report.agreement;
  const steps = agreement?.byStep.map((fraction, r) => `step ${r + 1}: ${percent(fraction)}`);
  return [
    ...(gap ? [["top-k minus causal", `${estimate(gap)} nats per token`] as [string, string]] : []),
    ...(agreement
      ? [[
        "agreement",
        `${percent(agreement.overall)} of top-k's decisions have the logit's sign ` +
        `(${steps!.join(", ")})`,
      ] as [string, string]]
      : []),
    ...(routingsDiffer || routings.size === 1
      ? []
      : [["routing", "top-k and causal are one rule for this model: one run for both"] as [string, string]]),
  ];
}

/** Depths that any routing gave to a token, and all from 1 up. */
function metDepths(columns: readonly RoutingResult[]): number[] {
  const counts = columns.flatMap(({ report: { depths } }) => depths ? [depths.tokens] : []);
  const all = Array.from(counts[0] ?? [], (_, depth) => depth);
  return all.filter((depth) => depth > 0 || counts.some((tokens) => tokens[0]! > 0));
}

function estimate({ mean, standardError }: Estimate): string {
  return standardError === null ? mean.toFixed(4) : `${mean.toFixed(4)} ± ${standardError.toFixed(4)}`;
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(1)} %`;
}

const NAME_WIDTH = 20;

function lines(rows: readonly (readonly [string, string])[]): string {
  return rows.map(([name, value]) => `${name.padEnd(NAME_WIDTH)}${value}\n`).join("");
}
