/** Models from elsewhere as checkpoints of this program: config.json, model.safetensors, the tokenizer's files. */
import { join } from "@std/path";
import { elementCount } from "../../gpu/tensor.ts";
import { writeConfig } from "../files/checkpoint.ts";
import type { CheckpointSource } from "../files/checkpoint_source.ts";
import {
  announced,
  type ConversionProgress,
  convertedFormats,
  convertedRows,
} from "../files/convert_weights.ts";
import { makeModelFolder, withStoredFormat } from "../files/model_folder.ts";
import { parameterTable } from "../parameters.ts";
import {
  isSafetensorsFormat,
  type SafetensorsFormat,
  writeSafetensors,
} from "../files/safetensors_writer.ts";
import { type TokenizerSource, writeTokenizerFiles } from "../text/tokenizer_source.ts";

/**
 * Writes a model into a folder of this program's. Weights stay as they are stored where safetensors can say it, and are f32
 * otherwise.
 *
 * @param tokenizer Null: the model has none, and the checkpoint neither.
 * @param dtype The format of matrices instead.
 * @throws ConfigError for a folder that is not empty, CheckpointError for missing or damaged weights.
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
  const formats = convertedFormats(config, { file, dtype, canKeep: isSafetensorsFormat });
  const tensors = parameterTable(config).map((spec) => {
    const format = formats.get(spec.name)!;
    const { name, shape } = spec;
    return { name, shape, format, data: () => convertedRows(file, { weight: spec, format }) };
  });
  await makeModelFolder(out, {
    fill: async (folder) => {
      await writeSafetensors(join(folder, "model.safetensors"), {
        tensors: announced(tensors, onWeight),
        metadata: { format: "pt" },
      });
      if (tokenizer) await writeTokenizerFiles(folder, tokenizer);
      await writeConfig(folder, withStoredFormat(config, dtype ?? nominalFormat(tensors)));
    },
  });
}

/** What the weights are said to be: blocks if any are, of the format that holds more numbers. */
function nominalFormat(
  tensors: readonly { readonly shape: readonly number[]; readonly format: SafetensorsFormat }[],
): SafetensorsFormat {
  const counts = { q8_0: 0, q4_0: 0 };
  for (const { format, shape } of tensors) {
    if (format === "q8_0" || format === "q4_0") counts[format] += elementCount(shape);
  }
  if (counts.q8_0 + counts.q4_0 === 0) return tensors[0]!.format;
  return counts.q8_0 >= counts.q4_0 ? "q8_0" : "q4_0";
}
