/** From the sums of a text run through two models to the figures that people compare. */
import type { ComparedWindow } from "./compare_text.ts";
import { type Estimate, meanPerToken } from "./evaluation_report.ts";

/** How far a model's predictions are from a reference's; errors are those of windows, see `meanPerToken`. */
export interface ComparisonReport {
  /** Tokens that were predicted. */
  readonly tokens: number;
  readonly windows: number;
  readonly referencePerplexity: Estimate;
  readonly perplexity: Estimate;
  /** Perplexity over the reference's, minus 1. */
  readonly perplexityChangePercent: Estimate;
  /** KL(reference || model), nats per token. */
  readonly klDivergence: Estimate;
  /** Tokens for which both models find the same next one likeliest. */
  readonly topTokenAgreementPercent: Estimate;
}

/**
 * The figures of all windows of a text, at least one.
 *
 * Both models meet the same hard and easy windows, so the change of perplexity, exp(mean difference of losses) - 1, has
 * the error of the windows' differences, much below the errors of both perplexities.
 */
export function comparisonReport(windows: readonly ComparedWindow[]): ComparisonReport {
  function mean(sumOf: (window: ComparedWindow) => number): Estimate {
    return meanPerToken(windows.map((window) => ({ tokens: window.tokens, loss: sumOf(window) })));
  }
  const lossChange = mean(({ loss, referenceLoss }) => loss - referenceLoss);
  return {
    tokens: windows.reduce((sum, { tokens }) => sum + tokens, 0),
    windows: windows.length,
    referencePerplexity: perplexityOf(mean(({ referenceLoss }) => referenceLoss)),
    perplexity: perplexityOf(mean(({ loss }) => loss)),
    perplexityChangePercent: scaled(
      { ...perplexityOf(lossChange), mean: Math.expm1(lossChange.mean) },
      { by: 100 },
    ),
    klDivergence: mean(({ divergence }) => divergence),
    topTokenAgreementPercent: scaled(mean(({ agreements }) => agreements), { by: 100 }),
  };
}

/** exp of a loss; its error is the slope there, exp(loss) again, times the loss's. */
function perplexityOf(loss: Estimate): Estimate {
  const perplexity = Math.exp(loss.mean);
  return { ...scaled(loss, { by: perplexity }), mean: perplexity };
}

function scaled({ mean, standardError }: Estimate, { by }: { by: number }): Estimate {
  return { mean: mean * by, standardError: standardError === null ? null : standardError * by };
}
