/** Vanilla models as GGUF files for llama.cpp. */
import { basename, dirname } from "@std/path";
import { elementCount } from "../../gpu/tensor.ts";
import { ConfigError, type ModelConfig } from "../config.ts";
import { convertNumbers } from "../files/convert_numbers.ts";
import { announced, convertedFormats, convertedRows } from "../files/convert_weights.ts";
import type { ExportOptions } from "./export_folder.ts";
import { ggufModelFields, ggufRopeFactors } from "../files/gguf_model_fields.ts";
import { ggufName, ROPE_FACTORS, rowInGguf } from "../files/gguf_names.ts";
import { ggufTokenizerFields } from "../text/gguf_tokenizer_fields.ts";
import { type GgufSource, writeGguf } from "../files/gguf_writer.ts";
import { type EncodedFormat, encodeNumbers, type NumberFormat } from "../files/number_formats.ts";
import { type ParameterSpec, parameterTable } from "../parameters.ts";
import { storedFormat, type WeightFile } from "../files/weight_file.ts";
import { makeFolder } from "../files/whole_file.ts";

/** A weight with its format in the file. */
interface ExportedWeight {
  readonly spec: ParameterSpec;
  readonly format: NumberFormat;
}

/**
 * Writes the file: matrices as they are stored or in the wanted format, norms as f32. Its name becomes the model's.
 *
 * @throws ConfigError for a model or tokenizer that llama.cpp does not have, or a file that is there already;
 * CheckpointError for missing or damaged weights, and for numbers beyond the format's range.
 */
export async function exportGguf(
  { config, weights, tokenizer, dtype, out, onWeight }: ExportOptions<EncodedFormat>,
): Promise<void> {
  if (config.recursion) {
    throw new ConfigError(
      "Cannot export a recursive model as GGUF, which llama.cpp would run without its recursion; export it to hf",
    );
  }
  if (!tokenizer) {
    throw new ConfigError(
      "Cannot export as GGUF: the model has no tokenizer, which is part of the file; export to hf",
    );
  }
  const formats = convertedFormats(config, { file: weights, dtype, canKeep: isKept });
  const table = parameterTable(config).map((spec) => ({ spec, format: formats.get(spec.name)! }));
  const metadata = {
    ...ggufModelFields(config, { name: basename(out, ".gguf"), format: mostCommon(table) }),
    ...ggufTokenizerFields(tokenizer, { config }),
  };
  const tensors = [
    ...ropeFactors(config),
    ...table.map((weight) => weightSource(weights, { weight, config })),
  ];
  await checkPlace(out);
  await makeFolder(dirname(out));
  await writeGguf(out, { metadata, tensors: announced(tensors, onWeight) });
}

/** llama.cpp multiplies with norms of f32 only. */
function isKept(_: NumberFormat, { kind }: ParameterSpec): _ is NumberFormat {
  return kind === "matrix";
}

/** The format of most numbers. */
function mostCommon(table: readonly ExportedWeight[]): NumberFormat {
  const counts = new Map<NumberFormat, number>();
  for (const { spec, format } of table) {
    counts.set(format, (counts.get(format) ?? 0) + elementCount(spec.shape));
  }
  return [...counts].reduce((most, next) => next[1] > most[1] ? next : most)[0];
}

function weightSource(
  file: WeightFile,
  { weight: { spec, format }, config }: { weight: ExportedWeight; config: ModelConfig },
): GgufSource {
  const { name, shape } = spec;
  const isReordered = /\.[qk]_proj\.weight$/.test(name);
  const data = isReordered
    ? () => reorderedRows(file, { weight: { spec, format }, config })
    : () => convertedRows(file, { weight: spec, format });
  return { name: ggufName(name), shape, format, data };
}

/** Rows of queries or keys in llama.cpp's order, a head at a time. */
async function* reorderedRows(
  file: WeightFile,
  { weight: { spec, format: to }, config: { headDim } }: { weight: ExportedWeight; config: ModelConfig },
): AsyncGenerator<Uint8Array> {
  const { name, shape } = spec;
  const from = storedFormat(file, spec);
  for (let start = 0; start < shape[0]!; start += headDim) {
    const stored = await file.readRows(name, { start, count: headDim });
    const rows = convertNumbers(stored, { name, from, to });
    const length = rows.length / headDim;
    const out = new Uint8Array(rows.length);
    for (let row = 0; row < headDim; row++) {
      out.set(rows.subarray(row * length, (row + 1) * length), rowInGguf(row, { headDim }) * length);
    }
    yield out;
  }
}

function ropeFactors(config: ModelConfig): GgufSource[] {
  const factors = ggufRopeFactors(config);
  if (!factors) return [];
  return [{
    name: ROPE_FACTORS,
    shape: [factors.length],
    format: "f32",
    data: () => [encodeNumbers("f32", factors)],
  }];
}

async function checkPlace(path: string): Promise<void> {
  if (!path.endsWith(".gguf")) {
    throw new ConfigError(`Cannot write ${path}: wanted a name that ends in .gguf`);
  }
  const info = await Deno.stat(path).catch(() => null);
  if (info) throw new ConfigError(`Cannot write ${path}: it is there already; give another name`);
}
