/** The weights of a folder: one safetensors file, or several with an index that says which tensor is where. */
import { join } from "@std/path";
import { brief } from "../config_schema.ts";
import { parseJson } from "./json_text.ts";
import { CheckpointError, SafetensorsFile } from "./safetensors.ts";
import { readTextFile } from "./text_file.ts";
import type { RowRange, WeightEntry, WeightFile } from "./weight_file.ts";

const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";

/** Whether a folder with files of these names holds weights that `openShards` opens. */
export function holdsShards(names: readonly string[]): boolean {
  return names.includes(WEIGHTS) || names.includes(INDEX);
}

/** A shard's name: a file of the same folder. */
const SHARD = /^[\w.-]+\.safetensors$/;

/**
 * Opens `model.safetensors`, or the files that `model.safetensors.index.json` names.
 *
 * @throws CheckpointError when files are missing or damaged, or the index does not tell what they hold.
 */
export async function openShards(folder: string): Promise<WeightFile> {
  const path = join(folder, INDEX);
  const isSharded = await Deno.stat(path).then(() => true, () => false);
  const isWhole = await Deno.stat(join(folder, WEIGHTS)).then(() => true, () => false);
  if (isWhole || !isSharded) return await SafetensorsFile.open(join(folder, WEIGHTS));
  const weightMap = await readIndex(path);
  const shards = new Map<string, SafetensorsFile>();
  try {
    for (const name of new Set(weightMap.values())) {
      shards.set(name, await SafetensorsFile.open(join(folder, name)));
    }
    return new ShardedWeights(path, { shards, weightMap });
  } catch (error) {
    for (const shard of shards.values()) shard[Symbol.dispose]();
    throw error;
  }
}

/** The shard of each tensor, by its name. */
async function readIndex(path: string): Promise<Map<string, string>> {
  function fail(text: string): never {
    throw new CheckpointError(`Cannot load ${path}: ${text}`);
  }
  const json = parseJson(await readTextFile(path), (problem) => fail(`it ${problem}`));
  const map = (json as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== "object" || map === null) fail(`field "weight_map" is ${brief(map)}, wanted an object`);
  return new Map(
    Object.entries(map).map(([name, shard]) =>
      typeof shard === "string" && SHARD.test(shard)
        ? [name, shard]
        : fail(`field "weight_map.${name}" is ${brief(shard)}, wanted a .safetensors file of the same folder`)
    ),
  );
}

class ShardedWeights implements WeightFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, WeightEntry>;
  readonly others: ReadonlyMap<string, string>;
  readonly #shards: ReadonlyMap<string, SafetensorsFile>;
  readonly #weightMap: ReadonlyMap<string, string>;

  /** @throws CheckpointError when the index and the shards do not agree. */
  constructor(path: string, { shards, weightMap }: {
    shards: ReadonlyMap<string, SafetensorsFile>;
    weightMap: ReadonlyMap<string, string>;
  }) {
    this.path = path;
    this.#shards = shards;
    this.#weightMap = weightMap;
    const entries = new Map<string, WeightEntry>();
    const others = new Map<string, string>();
    for (const [name, shard] of weightMap) {
      const file = shards.get(shard)!;
      const [entry, dtype] = [file.entries.get(name), file.others.get(name)];
      if (entry) entries.set(name, entry);
      else if (dtype !== undefined) others.set(name, dtype);
      else throw new CheckpointError(`Cannot load ${path}: tensor "${name}" is not in ${shard}`);
    }
    for (const [shard, file] of shards) {
      for (const name of [...file.entries.keys(), ...file.others.keys()]) {
        if (weightMap.get(name) === shard) continue;
        throw new CheckpointError(
          `Cannot load ${path}: it does not say that tensor "${name}" is in ${shard}`,
        );
      }
    }
    this.entries = entries;
    this.others = others;
  }

  async readRows(name: string, rows: RowRange): Promise<Uint8Array<ArrayBuffer>> {
    const shard = this.#shards.get(this.#weightMap.get(name) ?? "");
    if (!shard) throw new CheckpointError(`Cannot load ${this.path}: tensor "${name}" is missing`);
    return await shard.readRows(name, rows);
  }

  [Symbol.dispose](): void {
    for (const shard of this.#shards.values()) shard[Symbol.dispose]();
  }
}
