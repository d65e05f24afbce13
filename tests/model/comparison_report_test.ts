import { assertAlmostEquals, assertEquals } from "@std/assert";
import type { ComparedWindow } from "../../model/compare_text.ts";
import { comparisonReport } from "../../model/comparison_report.ts";

/** Windows of 4, 4 and 2 tokens; the model's losses are higher by 0, 1 and 0.5. */
const windows: readonly ComparedWindow[] = [
  { tokens: 4, referenceLoss: 4, loss: 4, divergence: 0.5, agreements: 4 },
  { tokens: 4, referenceLoss: 6, loss: 7, divergence: 1, agreements: 2 },
  { tokens: 2, referenceLoss: 5, loss: 5.5, divergence: 0.5, agreements: 2 },
];

Deno.test("comparisonReport gives every figure with the error of its windows", () => {
  const report = comparisonReport(windows);
  assertEquals([report.tokens, report.windows], [10, 3]);
  const expected = {
    // Means 1.5, 1.65, 0.15, 0.2 and 0.8. The windows' distances from them: 2, 0, 2; 2.6, 0.4, 2.2; 0.6, 0.4, 0.2;
    // 0.3, 0.2, 0.1; 0.8, 1.2, 0.4. Errors are the roots of 3 / 2 * their squares, over 10 tokens.
    referencePerplexity: [Math.exp(1.5), Math.exp(1.5) * Math.sqrt(1.5 * 8) / 10],
    perplexity: [Math.exp(1.65), Math.exp(1.65) * Math.sqrt(1.5 * 11.76) / 10],
    perplexityChangePercent: [
      100 * (Math.exp(0.15) - 1),
      100 * Math.exp(0.15) * Math.sqrt(1.5 * 0.56) / 10,
    ],
    klDivergence: [0.2, Math.sqrt(1.5 * 0.14) / 10],
    topTokenAgreementPercent: [80, 100 * Math.sqrt(1.5 * 2.24) / 10],
  } as const;
  for (const [name, [mean, error]] of Object.entries(expected)) {
    const met = report[name as keyof typeof expected];
    assertAlmostEquals(met.mean, mean, 1e-12, name);
    assertAlmostEquals(met.standardError!, error, 1e-12, `error of ${name}`);
  }
});

Deno.test("comparisonReport of models alike is certain of it", () => {
  const alike = windows.map((window) => ({
    ...window,
    loss: window.referenceLoss,
    divergence: 0,
    agreements: window.tokens,
  }));
  const report = comparisonReport(alike);
  assertEquals(report.perplexity, report.referencePerplexity);
  assertEquals(report.perplexityChangePercent, { mean: 0, standardError: 0 });
  assertEquals(report.klDivergence, { mean: 0, standardError: 0 });
  assertEquals(report.topTokenAgreementPercent, { mean: 100, standardError: 0 });
});

Deno.test("comparisonReport is certain of a change that every window shows alike", () => {
  const costlier = windows.map((window) => ({
    ...window,
    loss: window.referenceLoss + window.tokens / 8,
  }));
  const { perplexityChangePercent: { mean, standardError }, perplexity } = comparisonReport(costlier);
  assertAlmostEquals(mean, 100 * (Math.exp(0.125) - 1), 1e-12);
  assertEquals(standardError, 0);
  assertEquals(perplexity.standardError! > 0, true);
});

Deno.test("comparisonReport knows no errors from one window", () => {
  const { tokens, windows: count, ...figures } = comparisonReport(windows.slice(1, 2));
  assertEquals([tokens, count, figures.klDivergence.mean], [4, 1, 0.25]);
  assertEquals(Object.values(figures).map(({ standardError }) => standardError), new Array(5).fill(null));
});
