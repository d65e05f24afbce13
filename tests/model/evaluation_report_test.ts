import { assertAlmostEquals, assertEquals } from "@std/assert";
import type { EvaluatedBatch } from "../../model/evaluate_text.ts";
import {
  bitsPerByte,
  bytesPerToken,
  evaluationReport,
  lossGap,
  meanPerToken,
} from "../../model/evaluation_report.ts";
import { byteTokenizer } from "../../model/text/tokenizer.ts";

Deno.test("meanPerToken of equal windows is the mean of their means, with its standard error", () => {
  const windows = [2, 4, 6].map((loss) => ({ tokens: 2, loss }));
  // Window means 1, 2, 3: standard deviation 1 over the root of 3.
  const { mean, standardError } = meanPerToken(windows);
  assertEquals(mean, 2);
  assertAlmostEquals(standardError!, 1 / Math.sqrt(3), 1e-15);
});

Deno.test("meanPerToken weighs windows by their tokens", () => {
  // Mean 7 / 5; the windows are 1.6 below and above it: sqrt(2 / 1 * 2 * 1.6^2) / 5.
  const { mean, standardError } = meanPerToken([{ tokens: 4, loss: 4 }, { tokens: 1, loss: 3 }]);
  assertAlmostEquals(mean, 1.4, 1e-15);
  assertAlmostEquals(standardError!, 0.64, 1e-15);
});

Deno.test("meanPerToken knows no error from one window", () => {
  assertEquals(meanPerToken([{ tokens: 3, loss: 6 }]), { mean: 2, standardError: null });
  const bits = bitsPerByte({ mean: 2, standardError: null }, { bytesPerToken: 1 });
  assertEquals(bits, { mean: 2 / Math.LN2, standardError: null });
});

/** Two batches of a model with two recursions. */
const batches: readonly EvaluatedBatch[] = [
  {
    windows: [{ tokens: 4, loss: 4 }, { tokens: 4, loss: 6 }],
    depths: [{ tokens: 0, loss: 0 }, { tokens: 6, loss: 6 }, { tokens: 2, loss: 4 }],
    decisions: [{ candidates: 8, agreed: 8 }, { candidates: 8, agreed: 6 }],
  },
  {
    windows: [{ tokens: 2, loss: 5 }],
    depths: [{ tokens: 0, loss: 0 }, { tokens: 0, loss: 0 }, { tokens: 2, loss: 5 }],
    decisions: [{ candidates: 2, agreed: 0 }, { candidates: 2, agreed: 1 }],
  },
];

Deno.test("evaluationReport adds up batches", () => {
  const { tokens, loss, perplexity, depths, agreement } = evaluationReport(batches);
  assertEquals([tokens, loss.mean, perplexity], [10, 1.5, Math.exp(1.5)]);
  // Windows 2 below, 0 from and 2 above what the mean makes of them: sqrt(3 / 2 * (4 + 0 + 4)) / 10.
  assertAlmostEquals(loss.standardError!, Math.sqrt(12) / 10, 1e-15);
  assertEquals(depths, {
    tokens: [0, 6, 4],
    fractions: [0, 0.6, 0.4],
    mean: 1.4,
    losses: [null, 1, 2.25],
  });
  assertEquals(agreement, { overall: 15 / 20, byStep: [8 / 10, 7 / 10] });
});

Deno.test("evaluationReport of a vanilla model has neither depths nor agreement", () => {
  const plain = batches.map(({ windows }) => ({ windows, depths: null, decisions: null }));
  const { depths, agreement, loss } = evaluationReport(plain);
  assertEquals([depths, agreement, loss.mean], [null, null, 1.5]);
});

Deno.test("lossGap compares window by window", () => {
  const than = evaluationReport(batches);
  const costlier = batches.map((batch) => ({
    ...batch,
    windows: batch.windows.map(({ tokens, loss }) => ({ tokens, loss: loss + tokens / 8 })),
  }));
  // Every window loses the same, so the gap is certain although the losses are not.
  assertEquals(lossGap(evaluationReport(costlier), { than }), { mean: 0.125, standardError: 0 });
  assertEquals(lossGap(than, { than: evaluationReport(costlier) }).mean, -0.125);
});

Deno.test("bits per byte charge a token's nats to the bytes that it stands for", () => {
  const loss = { mean: Math.LN2 * 6, standardError: Math.LN2 * 3 };
  const { mean, standardError } = bitsPerByte(loss, { bytesPerToken: 3 });
  assertAlmostEquals(mean, 2, 1e-15);
  assertAlmostEquals(standardError!, 1, 1e-15);
});

Deno.test("bytesPerToken counts the bytes of the text, none for the end of one", () => {
  const ratio = (ids: readonly number[]): number =>
    bytesPerToken(Uint32Array.from(ids), { tokenizer: byteTokenizer });
  assertEquals(ratio(byteTokenizer.encode("Wal — “riesig”")), 1);
  assertEquals(ratio([...byteTokenizer.encode("é"), byteTokenizer.endOfText, 97]), 3 / 4);
});
