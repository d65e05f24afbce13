/**
 * The bench's model in jax-js: as `vanilla` of training.ts makes it, with as many keys and values as queries, under the
 * same names and with matrices of the same shapes, (outputs, inputs).
 */
import type { ModelConfig } from "../../model/config.ts";
import type { Jax, JaxArray, JaxArrays } from "./jax_js_library.ts";

/** What the model reads besides its weights; B * T is all tokens of the batch. */
export interface ModelInputs {
  /** (B * T) i32. */
  readonly ids: JaxArray;
  readonly targets: JaxArray;
  /** (T, 1, D / 2) f32: of the rotary position embedding's angles. */
  readonly cosines: JaxArray;
  readonly sines: JaxArray;
}

export interface ModelShape {
  readonly config: ModelConfig;
  readonly batchSize: number;
  readonly sequenceLength: number;
}

/** Cosines and sines of a shape. */
export function ropeTables(
  jax: Jax,
  { config: { headDim, ropeTheta }, sequenceLength: tokens }: ModelShape,
): Pick<ModelInputs, "cosines" | "sines"> {
  const half = headDim / 2;
  const angles = Array.from(
    { length: tokens * half },
    (_, i) => Math.floor(i / half) * ropeTheta ** (-2 * (i % half) / headDim),
  );
  const table = (of: (angle: number) => number): JaxArray =>
    jax.numpy.array(Float32Array.from(angles, of), { shape: [tokens, 1, half] });
  return { cosines: table(Math.cos), sines: table(Math.sin) };
}

/**
 * Mean cross-entropy of a batch, as a function to differentiate by the weights.
 *
 * @param looksUp Whether rows of the embedding are looked up; otherwise they come from a product with one-hot rows.
 */
export function crossEntropy(
  jax: Jax,
  { config, batchSize, sequenceLength, looksUp }: ModelShape & { looksUp: boolean },
): (weights: JaxArrays, inputs: ModelInputs) => JaxArray {
  const { numpy: np, nn } = jax;
  const { numAttentionHeads: heads, headDim, vocabSize } = config;
  const tokens = batchSize * sequenceLength;

  function linear(x: JaxArray, weight: JaxArray): JaxArray {
    return np.matmul(x, weight.transpose());
  }

  function rmsNorm(x: JaxArray, weight: JaxArray): JaxArray {
    const squares = np.square(x.ref).mean(-1, { keepdims: true });
    return x.mul(np.reciprocal(np.sqrt(squares.add(config.rmsNormEps)))).mul(weight);
  }

  /** Rotate-half; x (B, T, heads, D). */
  function rope(x: JaxArray, { cosines, sines }: Pick<ModelInputs, "cosines" | "sines">): JaxArray {
    const [first, second] = np.split(x, 2, -1) as [JaxArray, JaxArray];
    return np.concatenate([
      first.ref.mul(cosines.ref).sub(second.ref.mul(sines.ref)),
      second.mul(cosines.ref).add(first.mul(sines.ref)),
    ], -1);
  }

  function attention(x: JaxArray, weight: (name: string) => JaxArray, inputs: ModelInputs): JaxArray {
    const [q, k, v] = ["q", "k", "v"].map((name) =>
      linear(x.ref, weight(`self_attn.${name}_proj`)).reshape([batchSize, sequenceLength, heads, headDim])
    ) as [JaxArray, JaxArray, JaxArray];
    x.dispose();
    const mixed = nn.dotProductAttention(rope(q, inputs), rope(k, inputs), v, { isCausal: true });
    return linear(mixed.reshape([tokens, heads * headDim]), weight("self_attn.o_proj"));
  }

  function feedForward(x: JaxArray, weight: (name: string) => JaxArray): JaxArray {
    const gate = nn.silu(linear(x.ref, weight("mlp.gate_proj")));
    return linear(gate.mul(linear(x, weight("mlp.up_proj"))), weight("mlp.down_proj"));
  }

  return (weights, inputs) => {
    const { ids, targets, cosines, sines } = inputs;
    const embedding = weights["model.embed_tokens.weight"]!;
    let x = looksUp ? embedding.ref.slice(ids) : np.matmul(nn.oneHot(ids, vocabSize), embedding.ref);
    for (let layer = 0; layer < config.numHiddenLayers; layer++) {
      const weight = (name: string): JaxArray => weights[`model.layers.${layer}.${name}.weight`]!;
      x = x.ref.add(attention(rmsNorm(x, weight("input_layernorm")), weight, inputs));
      x = x.ref.add(feedForward(rmsNorm(x, weight("post_attention_layernorm")), weight));
    }
    for (const table of [cosines, sines]) table.dispose();
    const logits = linear(rmsNorm(x, weights["model.norm.weight"]!), embedding);
    // A lookup by the targets would be differentiated into a scatter, which takes longer than the comparison.
    const isTarget = targets.reshape([tokens, 1]).equal(np.arange(vocabSize));
    const chosen = np.where(isTarget, logits.ref, 0).sum(-1);
    return nn.logsumexp(logits, -1).sub(chosen).mean();
  };
}
