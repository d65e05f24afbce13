/** From the sums of an evaluated text to the figures that people compare. */
import type { EvaluatedBatch, LossSum, StepDecisions } from "./evaluate_text.ts";
import type { Tokenizer } from "./text/tokenizer.ts";

/** A mean and how far it may be off by the luck of the text; null for a text of one window, which tells nothing. */
export interface Estimate {
  readonly mean: number;
  readonly standardError: number | null;
}

/** How a text's tokens spread over recursion depths, 0 first. */
export interface DepthReport {
  readonly tokens: readonly number[];
  readonly fractions: readonly number[];
  readonly mean: number;
  /** Mean cross-entropy of what tokens of each depth predicted, nats; null where there is none. */
  readonly losses: readonly (number | null)[];
}

/**
 * Fraction of top-k's candidates that the sign of their logit, which decides in causal routing, keeps or drops alike:
 * the paper's sampling accuracy. As there, a first step that keeps every token counts too: its logits should be positive.
 */
export interface Agreement {
  readonly overall: number;
  readonly byStep: readonly number[];
}

/** One text by one routing. */
export interface EvaluationReport {
  /** Tokens that were predicted. */
  readonly tokens: number;
  readonly windows: readonly LossSum[];
  /** Cross-entropy, nats per token. */
  readonly loss: Estimate;
  readonly perplexity: number;
  /** Null for a vanilla model. */
  readonly depths: DepthReport | null;
  /** Null unless expert choice routed by top-k. */
  readonly agreement: Agreement | null;
}

/** The figures of all batches of a text, at least one. */
export function evaluationReport(batches: readonly EvaluatedBatch[]): EvaluationReport {
  const windows = batches.flatMap((batch) => batch.windows);
  const loss = meanPerToken(windows);
  const depths = batches.flatMap((batch) => batch.depths ? [batch.depths] : []);
  const decisions = batches.flatMap((batch) => batch.decisions ? [batch.decisions] : []);
  return {
    tokens: total(windows).tokens,
    windows,
    loss,
    perplexity: Math.exp(loss.mean),
    depths: depths.length === 0 ? null : depthReport(depths),
    agreement: decisions.length === 0 ? null : agreementOf(decisions),
  };
}

/**
 * How much more a token costs by `routing` than by `than` on the same windows. Both meet the same hard and easy ones,
 * so the error of the difference is that of the windows' differences, much below the errors of both.
 */
export function lossGap(routing: EvaluationReport, { than }: { than: EvaluationReport }): Estimate {
  const differences = routing.windows.map(({ tokens, loss }, w) => ({
    tokens,
    loss: loss - than.windows[w]!.loss,
  }));
  return meanPerToken(differences);
}

/**
 * Mean per token. The tokens of a window share its context, so a window counts as one observation; with windows of
 * unlike lengths the mean is a ratio of sums, whose error is
 *
 *   SE^2 = W / (W - 1) * sum_w (loss_w - mean * tokens_w)^2 / (sum_w tokens_w)^2
 *
 * and with W windows of one length the standard deviation of their means over sqrt(W). It says how much another text
 * of the same kind may differ, not another training run.
 */
export function meanPerToken(windows: readonly LossSum[]): Estimate {
  const { tokens, loss } = total(windows);
  const mean = loss / tokens;
  const count = windows.length;
  if (count < 2) return { mean, standardError: null };
  const squares = windows.reduce((sum, window) => sum + (window.loss - mean * window.tokens) ** 2, 0);
  return { mean, standardError: Math.sqrt((count / (count - 1)) * squares) / tokens };
}

/** Bits per UTF-8 byte from nats per token: comparable between models with unlike tokenizers. */
export function bitsPerByte(
  { mean, standardError }: Estimate,
  { bytesPerToken }: { bytesPerToken: number },
): Estimate {
  const scale = 1 / (Math.LN2 * bytesPerToken);
  return { mean: mean * scale, standardError: standardError === null ? null : standardError * scale };
}

/** UTF-8 bytes of the text that the tokens stand for, over their number. */
export function bytesPerToken(tokens: Uint32Array, { tokenizer }: { tokenizer: Tokenizer }): number {
  const decoder = tokenizer.decoder();
  const pieces: string[] = [];
  for (const id of tokens) pieces.push(decoder.push(id));
  pieces.push(decoder.flush());
  return new TextEncoder().encode(pieces.join("")).length / tokens.length;
}

function depthReport(batches: readonly (readonly LossSum[])[]): DepthReport {
  const depths = batches[0]!.map((_, depth) => total(batches.map((batch) => batch[depth]!)));
  const tokens = depths.map((sum) => sum.tokens);
  const all = tokens.reduce((sum, count) => sum + count, 0);
  const fractions = tokens.map((count) => count / all);
  return {
    tokens,
    fractions,
    mean: fractions.reduce((sum, fraction, depth) => sum + fraction * depth, 0),
    losses: depths.map((sum) => sum.tokens === 0 ? null : sum.loss / sum.tokens),
  };
}

function agreementOf(batches: readonly (readonly StepDecisions[])[]): Agreement {
  const steps = batches[0]!.map((_, r) => ({
    candidates: batches.reduce((sum, batch) => sum + batch[r]!.candidates, 0),
    agreed: batches.reduce((sum, batch) => sum + batch[r]!.agreed, 0),
  }));
  const candidates = steps.reduce((sum, step) => sum + step.candidates, 0);
  const agreed = steps.reduce((sum, step) => sum + step.agreed, 0);
  return { overall: agreed / candidates, byStep: steps.map((step) => step.agreed / step.candidates) };
}

function total(sums: readonly LossSum[]): { tokens: number; loss: number } {
  return sums.reduce((all, { tokens, loss }) => ({ tokens: all.tokens + tokens, loss: all.loss + loss }), {
    tokens: 0,
    loss: 0,
  });
}
