/** Models from elsewhere as checkpoints of this program: config.json, model.safetensors, the tokenizer's files. */
import { join } from "@std/path";
import { elementCount } from "../../gpu/tensor.ts";
import { writeConfig } from "../files/checkpoint.ts";
import type { CheckpointSource } from "../files/checkpoint_source.ts";
import type { ModelConfig } from "../config.ts";
import {
  announced,
  type ConversionProgress,
  convertedFormats,
  convertedRows,
} from "../files/convert_weights.ts";
import { makeModelFolder, withStoredFormat } from "../files/model_folder.ts";
import type { NumberFormat } from "../files/number_formats.ts";
import { parameterTable } from "../parameters.ts";
import { type SafetensorsFormat, writeSafetensors } from "../files/safetensors_writer.ts";
import { type TokenizerSource, writeTokenizerFiles } from "../text/tokenizer_source.ts";
import { storedFormat, type WeightFile } from "../files/weight_file.ts";

/**
 * Writes a model into a folder of this program's. Weights stay as they are stored where safetensors can say it, and are f32
 * otherwise; of blocks that is one kind for a file, the one of more numbers.
 *
 * @param tokenizer Null: the model has none, and the checkpoint neither.
 * @param dtype The format of matrices instead.
 * @throws ConfigError for a folder that holds a model, CheckpointError for missing or damaged weights.
 */
export async function importModel(
  { config, openWeights }: CheckpointSource,
  { tokenizer, dtype, out, onWeight }: {
    tokenizer: TokenizerSource | null;
    dtype: "f32" | "f16" | null;
    out: string;
    onWeight?: (progress: ConversionProgress) => void;
  },
): Promise<void> {
  using file = await openWeights();
  const blocks = blockFormat(config, file);
  function canKeep(format: NumberFormat): format is SafetensorsFormat {
    return ["f32", "f16", "bf16", blocks].includes(format);
  }
  const formats = convertedFormats(config, { file, dtype, canKeep });
  const tensors = parameterTable(config).map((spec) => {
    const format = formats.get(spec.name)!;
    const { name, shape } = spec;
    return { name, shape, format, data: () => convertedRows(file, { weight: spec, format }) };
  });
  await makeModelFolder(out);
  await writeSafetensors(join(out, "model.safetensors"), {
    tensors: announced(tensors, onWeight),
    metadata: { format: "pt" },
  });
  if (tokenizer) await writeTokenizerFiles(out, tokenizer);
  await writeConfig(out, withStoredFormat(config, dtype ?? blocks ?? tensors[0]!.format));
}

/** Of the blocks that checkpoints can have, those of more numbers; null for none. */
function blockFormat(config: ModelConfig, file: WeightFile): "q8_0" | "q4_0" | null {
  const counts = { q8_0: 0, q4_0: 0 };
  for (const spec of parameterTable(config)) {
    const format = storedFormat(file, spec);
    if (format === "q8_0" || format === "q4_0") counts[format] += elementCount(spec.shape);
  }
  if (counts.q8_0 + counts.q4_0 === 0) return null;
  return counts.q8_0 >= counts.q4_0 ? "q8_0" : "q4_0";
}
