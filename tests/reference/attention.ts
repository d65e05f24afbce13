import { addScaled, dot, row } from "./rows.ts";

/** Query heads H, key/value heads G (H a multiple of G) and head size D. */
export interface AttentionSizes {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
}

/** What attention reads: q (rows, H, D), k and v (key rows, G, D), spans (rows, 2). */
export interface AttentionInput {
  readonly q: Float64Array;
  readonly k: Float64Array;
  readonly v: Float64Array;
  /** For each packed row the `[start, end)` of the key rows of its own sequence; see `packSpans`. */
  readonly spans: ArrayLike<number>;
  /** For each packed row the last key row that it sees; itself by default, where the key rows are the rows. */
  readonly last?: ArrayLike<number>;
}

/**
 * Causal attention over packed sequences (Vaswani et al. 2017, arXiv 1706.03762, equation 1) with grouped
 * heads (Ainslie et al. 2023, arXiv 2305.13245).
 *
 * Row i attends to the key rows start..last of its sequence, by default those up to itself:
 * s_j = q_i . k_j / sqrt(D), logSumExp_i = log sum_j exp(s_j), out_i = sum_j exp(s_j - logSumExp_i) v_j.
 * Key/value head g serves the query heads g*H/G to (g+1)*H/G - 1. out (rows, H, D), logSumExp (rows, H).
 */
export function attention(
  { q, k, v, spans, last }: AttentionInput,
  { heads, keyValueHeads, headDim: width }: AttentionSizes,
): { out: Float64Array; logSumExp: Float64Array } {
  const rows = spans.length / 2;
  const out = new Float64Array(q.length);
  const logSumExp = new Float64Array(rows * heads);
  for (let i = 0; i < rows; i++) {
    const start = spans[2 * i]!;
    const end = (last?.[i] ?? i) + 1;
    for (let h = 0; h < heads; h++) {
      const g = Math.floor(h / (heads / keyValueHeads));
      const head = { index: i * heads + h, width };
      const scores: number[] = [];
      for (let j = start; j < end; j++) {
        const key = row(k, { index: j * keyValueHeads + g, width });
        scores.push(dot(row(q, head), key) / Math.sqrt(width));
      }
      // Shifted by the largest score, so that exp cannot overflow.
      const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
      const sum = scores.reduce((total, score) => total + Math.exp(score - largest), 0);
      logSumExp[head.index] = largest + Math.log(sum);
      for (let j = start; j < end; j++) {
        const source = row(v, { index: j * keyValueHeads + g, width });
        addScaled(row(out, head), { source, scale: Math.exp(scores[j - start]! - largest) / sum });
      }
    }
  }
  return { out, logSumExp };
}

/**
 * Gradients of `attention`; each has the shape of its tensor.
 *
 * With p_ij = exp(s_ij - logSumExp_i), delta_i = gradOut_i . out_i, gradS_ij = p_ij (gradOut_i . v_j -
 * delta_i): gradQ_i = sum_j gradS_ij k_j / sqrt(D), gradK_j = sum_i gradS_ij q_i / sqrt(D), gradV_j = sum_i
 * p_ij gradOut_i, the last two also summed over the query heads of a group (Dao et al. 2022, arXiv
 * 2205.14135, appendix B).
 */
export function attentionBackward(
  { gradOut, q, k, v, spans, last, out, logSumExp }: AttentionInput & {
    readonly gradOut: Float64Array;
    readonly out: Float64Array;
    readonly logSumExp: Float64Array;
  },
  { heads, keyValueHeads, headDim: width }: AttentionSizes,
): { gradQ: Float64Array; gradK: Float64Array; gradV: Float64Array } {
  const gradQ = new Float64Array(q.length);
  const gradK = new Float64Array(k.length);
  const gradV = new Float64Array(v.length);
  for (let i = 0; i < spans.length / 2; i++) {
    const start = spans[2 * i]!;
    const end = (last?.[i] ?? i) + 1;
    for (let h = 0; h < heads; h++) {
      const g = Math.floor(h / (heads / keyValueHeads));
      const head = { index: i * heads + h, width };
      const query = row(q, head);
      const gradient = row(gradOut, head);
      const delta = dot(gradient, row(out, head));
      for (let j = start; j < end; j++) {
        const other = { index: j * keyValueHeads + g, width };
        const key = row(k, other);
        const p = Math.exp(dot(query, key) / Math.sqrt(width) - logSumExp[head.index]!);
        const scale = p * (dot(gradient, row(v, other)) - delta) / Math.sqrt(width);
        addScaled(row(gradQ, head), { source: key, scale });
        addScaled(row(gradK, other), { source: query, scale });
        addScaled(row(gradV, other), { source: gradient, scale: p });
      }
    }
  }
  return { gradQ, gradK, gradV };
}
