/** Writing safetensors files, a tensor at a time and a tensor in as many pieces as its source likes. */
import { replaceFile, writeAll } from "./whole_file.ts";
import { type EncodedFormat, type NumberFormat, rowBytes } from "./number_formats.ts";
import { QUANTIZED, SafetensorsFile } from "./safetensors.ts";

/** Formats that such a file can hold. */
export type SafetensorsFormat = EncodedFormat | "bf16";

export function isSafetensorsFormat(format: NumberFormat): format is SafetensorsFormat {
  return ["f32", "f16", "bf16", "q8_0", "q4_0"].includes(format);
}

/** A tensor to write. */
export interface TensorSource {
  readonly name: string;
  readonly shape: readonly number[];
  /** f32 unless given. */
  readonly format?: SafetensorsFormat;
  /** Called when the tensor's turn comes: f32 numbers, or the bytes of its format in pieces. */
  readonly data: () => Promise<Float32Array> | Float32Array | AsyncIterable<Uint8Array>;
}

/** Dtype, shape and bytes of a tensor as the header gives them; quantized rows are plain bytes to it. */
function headerEntry(
  { shape, format = "f32" }: TensorSource,
): { dtype: string; shape: number[]; bytes: number } {
  const width = rowBytes(format, shape.at(-1) ?? 1);
  const rows = shape.slice(0, -1);
  const bytes = rows.reduce((product, n) => product * n, 1) * width;
  if (format === "q8_0" || format === "q4_0") return { dtype: "U8", shape: [...rows, width], bytes };
  return { dtype: format.toUpperCase(), shape: [...shape], bytes };
}

/**
 * Writes a file in one step (see `replaceFile`) and reads its header back before it takes its place.
 *
 * @throws CheckpointError when a source's data is not of its shape.
 */
export async function writeSafetensors(
  path: string,
  { tensors, metadata }: { tensors: readonly TensorSource[]; metadata: Readonly<Record<string, string>> },
): Promise<void> {
  const header: Record<string, unknown> = { __metadata__: { ...metadata, ...quantizedFormats(tensors) } };
  let offset = 0;
  for (const tensor of tensors) {
    const { dtype, shape, bytes } = headerEntry(tensor);
    header[tensor.name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  // Data starts at a multiple of eight bytes; the header is padded with spaces.
  const text = new Uint8Array(Math.ceil(json.length / 8) * 8).fill(32);
  text.set(json);
  const length = new Uint8Array(8);
  new DataView(length.buffer).setBigUint64(0, BigInt(text.length), true);
  await replaceFile(path, {
    write: async (file) => {
      await writeAll(file, length);
      await writeAll(file, text);
      for (const { data } of tensors) {
        const source = data();
        if (Symbol.asyncIterator in source) {
          for await (const bytes of source) await writeAll(file, bytes);
        } else {
          const { buffer, byteOffset, byteLength } = await source;
          await writeAll(file, new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength));
        }
      }
    },
    verify: async (unfinished) => (await SafetensorsFile.open(unfinished))[Symbol.dispose](),
  });
}

/** The formats of quantized tensors, for the metadata: that of the first, and each one that differs. */
function quantizedFormats(tensors: readonly TensorSource[]): Record<string, string> {
  const quantized = tensors.filter(({ format }) => format === "q8_0" || format === "q4_0");
  const usual = quantized[0]?.format;
  if (!usual) return {};
  const others = quantized.filter(({ format }) => format !== usual);
  return {
    [QUANTIZED]: usual,
    ...Object.fromEntries(others.map(({ name, format }) => [`${QUANTIZED}:${name}`, format!])),
  };
}
