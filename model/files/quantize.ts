/**
 * Writing a checkpoint's weights in fewer bits: f16, or llama.cpp's blocks q8_0 and q4_0. Matrices of layers, embedding
 * and head are packed; norms and routers stay f32, and so do matrices whose rows are not whole blocks of 32 numbers.
 */
import { join } from "@std/path";
import { BLOCK_LENGTH, type PackedFormat } from "../../gpu/packed_matrix.ts";
import { planAllocator } from "../../gpu/memory.ts";
import { elementCount } from "../../gpu/tensor.ts";
import { planWeights } from "../load_weights.ts";
import { writeConfig } from "./checkpoint.ts";
import { encodeWeight } from "./convert_numbers.ts";
import type { CheckpointSource } from "./checkpoint_source.ts";
import type { ModelConfig } from "../config.ts";
import { makeModelFolder, withStoredFormat } from "./model_folder.ts";
import { decodeNumbers, type EncodedFormat, rowBytes } from "./number_formats.ts";
import { type ParameterSpec, parameterTable, routerTable } from "../parameters.ts";
import { type TensorSource, writeSafetensors } from "./safetensors_writer.ts";
import { type TokenizerSource, writeTokenizerFiles } from "../text/tokenizer_source.ts";
import { storedRows, type WeightFile } from "./weight_file.ts";

/** What becomes of one weight. */
export interface QuantizedWeight extends ParameterSpec {
  readonly format: EncodedFormat;
  readonly bytes: number;
}

/** A quantized weight with what the rounding did to it. */
export interface QuantizationReport extends QuantizedWeight {
  /** |w - w'| / |w|, L2 norms over the whole weight; 0 for a weight of zeros. */
  readonly relativeError: number;
  /** Largest |w - w'|. */
  readonly largestError: number;
}

/** Formats to store weights in. */
export interface QuantizationFormats {
  readonly format: PackedFormat;
  /** Of embedding and head; `format` unless given. */
  readonly embeddingFormat?: PackedFormat | undefined;
}

/** Names of the matrices that may be other than f32: those of layers, embedding and head, not the routers'. */
export function reducibleMatrices(config: ModelConfig): Set<string> {
  const routers = routerTable(config).map(({ name }) => `${name}.`);
  const matrices = parameterTable(config).filter(({ name, kind }) =>
    kind === "matrix" && !routers.some((router) => name.startsWith(router))
  );
  return new Set(matrices.map(({ name }) => name));
}

/** Which weights are packed, and the bytes that all will take. */
export function quantizationPlan(
  config: ModelConfig,
  { format, embeddingFormat = format }: QuantizationFormats,
): QuantizedWeight[] {
  const reducible = reducibleMatrices(config);
  return parameterTable(config).map((spec) => {
    const isPacked = reducible.has(spec.name) && spec.shape[1]! % BLOCK_LENGTH === 0;
    const isEmbedding = /^(model\.embed_tokens|lm_head)\./.test(spec.name);
    const kept: EncodedFormat = !isPacked ? "f32" : isEmbedding ? embeddingFormat : format;
    const rows = spec.shape.length === 1 ? 1 : spec.shape[0]!;
    return { ...spec, format: kept, bytes: rows * rowBytes(kept, spec.shape.at(-1)!) };
  });
}

/** Bits of a weight on average. */
export function bitsPerWeight(weights: readonly QuantizedWeight[]): number {
  const numbers = weights.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  return (8 * weights.reduce((sum, { bytes }) => sum + bytes, 0)) / numbers;
}

/**
 * Quantizes a checkpoint, weight by weight, into the folder; with `out` null it writes nothing and only reports.
 *
 * @param tokenizer Null: the model has none, and the new checkpoint neither.
 * @param onWeight Called as each weight is done.
 * @throws ConfigError for a folder that is not empty; CheckpointError for damaged weights, those that the model has no
 * place for, and numbers beyond the format's range.
 */
export async function quantizeCheckpoint(
  { config, openWeights }: CheckpointSource,
  { out, tokenizer = null, onWeight, ...formats }: QuantizationFormats & {
    out: string | null;
    tokenizer?: TokenizerSource | null;
    onWeight: (report: QuantizationReport) => void;
  },
): Promise<void> {
  const plan = quantizationPlan(config, formats);
  using file = await openWeights();
  planWeights(planAllocator(), { config, file, choice: "auto" });
  const tensors = plan.map((weight): TensorSource => ({
    name: weight.name,
    shape: weight.shape,
    format: weight.format,
    data: () => quantizedRows(file, { weight, onWeight }),
  }));
  if (out === null) {
    for (const { data } of tensors) await Array.fromAsync(data() as AsyncIterable<Uint8Array>, () => null);
    return;
  }
  await makeModelFolder(out, {
    fill: async (folder) => {
      await writeSafetensors(join(folder, "model.safetensors"), { tensors, metadata: { format: "pt" } });
      if (tokenizer) await writeTokenizerFiles(folder, tokenizer);
      await writeConfig(folder, withStoredFormat(config, formats.format));
    },
  });
}

/** A weight's rows in its new format; reports what that did when they are through. */
async function* quantizedRows(
  file: WeightFile,
  { weight, onWeight }: { weight: QuantizedWeight; onWeight: (report: QuantizationReport) => void },
): AsyncGenerator<Uint8Array> {
  let [squares, errorSquares, largestError] = [0, 0, 0];
  for await (const { format, bytes } of storedRows(file, weight)) {
    if (format === weight.format) {
      yield bytes;
      continue;
    }
    const values = decodeNumbers(format, bytes);
    const packed = encodeWeight(weight, values);
    const rounded = decodeNumbers(weight.format, packed);
    for (let i = 0; i < values.length; i++) {
      const error = values[i]! - rounded[i]!;
      squares += values[i]! ** 2;
      errorSquares += error ** 2;
      if (Math.abs(error) > largestError) largestError = Math.abs(error);
    }
    yield packed;
  }
  const relativeError = squares === 0 ? 0 : Math.sqrt(errorSquares / squares);
  onWeight({ ...weight, relativeError, largestError });
}
