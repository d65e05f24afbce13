/** A model configuration as the metadata of a GGUF file: the inverse of gguf_config.ts. */
import { ConfigError, type ModelConfig, type YarnRopeScaling } from "../config.ts";
import { float32, type GgufFields, text, uint32 } from "./gguf_writer.ts";
import type { NumberFormat } from "./number_formats.ts";
import { ropeScales } from "../rope_scaling.ts";

/** llama.cpp's numbers for files whose matrices are mostly of a format. */
const FILE_TYPES: Readonly<Record<NumberFormat, number>> = {
  f32: 0,
  f16: 1,
  bf16: 32,
  q8_0: 7,
  q4_0: 2,
  q4_1: 3,
  q4_k: 15,
  q6_k: 18,
};

const PLAIN: ReadonlySet<NumberFormat> = new Set(["f32", "f16", "bf16"]);

/** Version of the layout of blocks. */
const QUANTIZATION_VERSION = 2;

/**
 * What a Llama model computes, in llama.cpp's words.
 *
 * @param format That of most of its numbers.
 * @throws ConfigError for a scaling of RoPE that llama.cpp does not have.
 */
export function ggufModelFields(
  config: ModelConfig,
  { name, format }: { name: string; format: NumberFormat },
): GgufFields {
  return {
    "general.architecture": text("llama"),
    "general.name": text(name),
    "general.file_type": uint32(FILE_TYPES[format]),
    ...(PLAIN.has(format) ? {} : { "general.quantization_version": uint32(QUANTIZATION_VERSION) }),
    "llama.vocab_size": uint32(config.vocabSize),
    "llama.context_length": uint32(config.maxPositionEmbeddings),
    "llama.embedding_length": uint32(config.hiddenSize),
    "llama.block_count": uint32(config.numHiddenLayers),
    "llama.feed_forward_length": uint32(config.intermediateSize),
    "llama.attention.head_count": uint32(config.numAttentionHeads),
    "llama.attention.head_count_kv": uint32(config.numKeyValueHeads),
    "llama.attention.key_length": uint32(config.headDim),
    "llama.attention.value_length": uint32(config.headDim),
    "llama.attention.layer_norm_rms_epsilon": float32(config.rmsNormEps),
    "llama.rope.dimension_count": uint32(config.headDim),
    "llama.rope.freq_base": float32(config.ropeTheta),
    ...scalingFields(config),
  };
}

function scalingFields({ ropeScaling: scaling }: ModelConfig): GgufFields {
  switch (scaling?.kind) {
    case "linear":
      return {
        "llama.rope.scaling.type": text("linear"),
        "llama.rope.scaling.factor": float32(scaling.factor),
      };
    case "yarn":
      return yarnFields(scaling);
    default:
      return {};
  }
}

function yarnFields(
  { factor, originalMaxPositionEmbeddings, betaFast, betaSlow, truncate, attentionFactor }: YarnRopeScaling,
): GgufFields {
  // What llama.cpp takes for a Llama model, whatever the file says.
  if (betaFast !== 32 || betaSlow !== 1 || !truncate) {
    throw new ConfigError(
      `Cannot export the model: its rope_scaling has beta_fast ${betaFast}, beta_slow ${betaSlow}, truncate ` +
        `${truncate}; llama.cpp has 32, 1, true only`,
    );
  }
  // llama.cpp multiplies the file's factor with YaRN's own.
  const attention = Math.fround(attentionFactor / (0.1 * Math.log(factor) + 1));
  return {
    "llama.rope.scaling.type": text("yarn"),
    "llama.rope.scaling.factor": float32(factor),
    "llama.rope.scaling.original_context_length": uint32(originalMaxPositionEmbeddings),
    ...(attention === 1 ? {} : { "llama.rope.scaling.attn_factor": float32(attention) }),
  };
}

/** (D/2): divisors of the rotary frequencies, for scalings that have no words in the metadata; null for the others. */
export function ggufRopeFactors(config: ModelConfig): Float32Array<ArrayBuffer> | null {
  const kind = config.ropeScaling?.kind;
  return kind === "llama3" || kind === "factors" ? Float32Array.from(ropeScales(config).divisors) : null;
}
