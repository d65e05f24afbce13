/** What the folders have in common that models are written into: they come into being whole, and say how weights lie. */
import { dirname, resolve } from "@std/path";
import { BLOCK_LENGTH } from "../../gpu/packed_matrix.ts";
import { ConfigError, type ModelConfig } from "../config.ts";
import type { SafetensorsFormat } from "./safetensors_writer.ts";
import { makeFolder, syncFolder } from "./whole_file.ts";

/**
 * Makes a model's folder: under another name until everything is in it, so that it is there whole or not at all.
 *
 * @param fill Writes the files into the folder that it gets.
 * @throws ConfigError when the folder is there already and not empty.
 */
export async function makeModelFolder(
  folder: string,
  { fill }: { fill: (unfinished: string) => Promise<void> },
): Promise<void> {
  const path = resolve(folder);
  const isThere = await isFolder(path);
  if (isThere && (await Array.fromAsync(Deno.readDir(path))).length > 0) {
    throw new ConfigError(`Cannot write to ${folder}: it is not empty; name another folder`);
  }
  const unfinished = `${path}.unfinished`;
  // What a killed run left.
  if (await isFolder(unfinished)) await Deno.remove(unfinished, { recursive: true });
  try {
    await makeFolder(unfinished);
    await fill(unfinished);
    if (isThere) await Deno.remove(path);
    await Deno.rename(unfinished, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await Deno.remove(unfinished, { recursive: true }).catch(() => {});
    throw error;
  }
}

/** @throws ConfigError for a file in the folder's place. */
async function isFolder(path: string): Promise<boolean> {
  const info = await Deno.stat(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  });
  if (info && !info.isDirectory) {
    throw new ConfigError(`Cannot write to ${path}: it is a file, wanted a folder`);
  }
  return info !== null;
}

/** A configuration with Hugging Face's fields for matrices in a format; none for f32, which is what is meant without. */
export function withStoredFormat(config: ModelConfig, format: SafetensorsFormat): ModelConfig {
  const { quantization_config: _, dtype: __, torch_dtype: ___, ...extra } = config.extra;
  return { ...config, extra: { ...extra, ...formatFields(format) } };
}

function formatFields(format: SafetensorsFormat): Record<string, unknown> {
  switch (format) {
    case "f32":
      return {};
    case "f16":
      return { torch_dtype: "float16" };
    case "bf16":
      return { torch_dtype: "bfloat16" };
    default:
      return { quantization_config: { quant_method: "mor", format, block_size: BLOCK_LENGTH } };
  }
}
