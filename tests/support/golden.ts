/**
 * Reads the golden cases of `fixtures/golden`.
 *
 * Its safetensors reader is written apart from the product's on purpose: a mistake in one cannot hide in the
 * other.
 */
import type { ModelConfig } from "../../model/config.ts";
import { parseModelConfig } from "../../model/config_file.ts";

/** Names of the cases; see `fixtures/README.md`. */
export const goldenNames = [
  "vanilla",
  "recursive_middle_cycle",
  "expert_choice",
  "expert_choice_cycle",
  "expert_choice_kv_shared",
  "token_choice",
] as const;

/** A case that `readGolden` can read. */
export type GoldenName = typeof goldenNames[number];

/** A tensor as stored: row-major data and its shape. */
export interface GoldenTensor<Data = Float32Array | Int32Array> {
  readonly shape: readonly number[];
  readonly data: Data;
}

/** One case: a model, and what an independent implementation computed with it. */
export interface Golden {
  readonly name: string;
  readonly config: ModelConfig;
  readonly weights: ReadonlyMap<string, GoldenTensor<Float32Array>>;
  readonly tensors: ReadonlyMap<string, GoldenTensor>;
}

/** Reads one case from `fixtures/golden`. */
export function readGolden(name: GoldenName): Golden {
  const folder = new URL(`../../fixtures/golden/${name}/`, import.meta.url);
  const config: unknown = JSON.parse(Deno.readTextFileSync(new URL("config.json", folder)));
  const weights = new Map<string, GoldenTensor<Float32Array>>();
  for (const [key, { shape, data }] of readTensors(new URL("model.safetensors", folder))) {
    if (!(data instanceof Float32Array)) throw new TypeError(`Weight "${key}" is not f32`);
    weights.set(key, { shape, data });
  }
  return {
    name,
    config: parseModelConfig(config, { source: `${name}/config.json` }),
    weights,
    tensors: readTensors(new URL("case.safetensors", folder)),
  };
}

/**
 * Values of one tensor of a case.
 *
 * @throws RangeError if the case does not have it
 */
export function goldenValues({ name, tensors }: Golden, tensor: string): Float32Array | Int32Array {
  const found = tensors.get(tensor);
  if (!found) throw new RangeError(`Golden case ${name} has no tensor "${tensor}"`);
  return found.data;
}

/**
 * The file: u64 header length, JSON header of {name: {dtype, shape, data_offsets}}, then the data,
 * little-endian.
 */
export function readTensors(file: URL): Map<string, GoldenTensor> {
  const bytes = Deno.readFileSync(file);
  const headerLength = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header: Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }> = JSON
    .parse(
      new TextDecoder().decode(bytes.subarray(8, 8 + headerLength)),
    );
  const tensors = new Map<string, GoldenTensor>();
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [start, end] = data_offsets;
    const buffer = bytes.slice(8 + headerLength + start, 8 + headerLength + end).buffer;
    if (dtype === "F32") tensors.set(name, { shape, data: new Float32Array(buffer) });
    else if (dtype === "I32") tensors.set(name, { shape, data: new Int32Array(buffer) });
    else {throw new TypeError(
        `Cannot read ${file.pathname}: tensor "${name}" has type ${dtype}, expected F32 or I32`,
      );}
  }
  return tensors;
}
