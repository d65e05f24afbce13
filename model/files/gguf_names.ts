/** What llama.cpp calls a Llama model's weights, and in which order it keeps the rows of queries and keys. */

/** Divisors of the rotary frequencies: no weight of Hugging Face's. */
export const ROPE_FACTORS = "rope_freqs.weight";

const ENDS: Readonly<Record<string, string>> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

const LAYER: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

/** `blk.3.attn_q.weight` as `model.layers.3.self_attn.q_proj.weight`; null for what a Llama model does not have. */
export function huggingFaceName(name: string): string | null {
  const [, layer, part] = /^blk\.(0|[1-9]\d*)\.(\w+)\.weight$/.exec(name) ?? [];
  if (part === undefined) return Object.hasOwn(ENDS, name) ? ENDS[name]! : null;
  return Object.hasOwn(LAYER, part) ? `model.layers.${layer}.${LAYER[part]}.weight` : null;
}

/** The inverse of `huggingFaceName`, for the weights of a model without recursion. */
export function ggufName(name: string): string {
  const [, layer, part] = /^model\.layers\.(\d+)\.(.+)\.weight$/.exec(name) ?? [];
  const table = part === undefined ? ENDS : LAYER;
  const [found] = Object.entries(table).find(([, theirs]) => theirs === (part ?? name))!;
  return part === undefined ? found : `blk.${layer}.${found}.weight`;
}

/**
 * Where llama.cpp keeps a row of a query or key projection: it rotates neighbours of a head, 2i with 2i + 1, where
 * Hugging Face rotates i with i + D/2.
 */
export function rowInGguf(row: number, { headDim }: { headDim: number }): number {
  const within = row % headDim;
  const half = headDim / 2;
  return row - within + 2 * (within % half) + Math.floor(within / half);
}
