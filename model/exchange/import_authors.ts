/** Weights of the authors' PyTorch code, under our names. */
import { authorsLayout, type AuthorsWeight } from "./authors_layout.ts";
import type { ModelConfig } from "../config.ts";
import { CheckpointError } from "../files/safetensors.ts";
import { areEqual, type RowRange, storedFormat, type WeightFile } from "../files/weight_file.ts";

/** Whether a file has names that only that code gives: modules of a recursion, or unrolled layers. */
export function isAuthorsLayout({ entries }: WeightFile, config: ModelConfig): boolean {
  const names = [...entries.keys()];
  if (names.some((name) => /^model\.layers\.\d+\.block(_list)?\./.test(name))) return true;
  if (!config.recursion) return false;
  const layout = authorsLayout(config);
  const ours = new Set(["lm_head.weight", ...layout.map(({ spec }) => spec.name)]);
  const theirs = new Set(layout.flatMap(({ names }) => names));
  return names.some((name) => theirs.has(name) && !ours.has(name));
}

/**
 * The file under our names; it is closed with the result. A file may hold one copy of a shared weight or several, which
 * must be equal.
 *
 * @throws CheckpointError for a missing or unknown weight, another shape, copies that differ, or no recursion in the
 * configuration.
 */
export async function importAuthorsWeights(file: WeightFile, config: ModelConfig): Promise<WeightFile> {
  const { path, entries, others } = file;
  if (!config.recursion) {
    throw new CheckpointError(
      `Cannot load ${path}: its weights are those of a Mixture-of-Recursions model, but config.json has no recursion; ` +
        "add the fields recursion, router and kv_cache, as in a config.json that mor export writes",
    );
  }
  const layout = authorsLayout(config);
  const known = new Set(layout.flatMap(({ names }) => names));
  for (const name of [...entries.keys(), ...others.keys()]) {
    if (!known.has(name)) {
      throw new CheckpointError(
        `Cannot load ${path}: tensor "${name}" is not part of the model that config.json describes`,
      );
    }
  }
  const sources = new Map<string, string>();
  for (const weight of layout) sources.set(weight.spec.name, await checkedSource(file, weight));
  return {
    path,
    entries: new Map(Array.from(sources, ([name, source]) => [name, entries.get(source)!])),
    others,
    readRows: (name: string, rows: RowRange) => file.readRows(sources.get(name) ?? name, rows),
    [Symbol.dispose]: () => file[Symbol.dispose](),
  };
}

/** The name that a weight is read under: the first of its copies, when all that are there are equal. */
async function checkedSource(file: WeightFile, { spec: { shape }, names }: AuthorsWeight): Promise<string> {
  const [source = names[0], ...copies] = names.filter((name) => file.entries.has(name));
  storedFormat(file, { name: source, shape });
  // A copy of a dtype that no weight can be is refused as the first would be.
  const strange = names.find((name) => file.others.has(name));
  if (strange !== undefined) storedFormat(file, { name: strange, shape });
  for (const copy of copies) {
    if (await areEqual(file, { shape, names: [source, copy] })) continue;
    const advice = copy === "lm_head.weight"
      ? "set tie_word_embeddings to false in config.json"
      : "that code shares the attention of expert choice only from commit 82c97f2 on";
    throw new CheckpointError(
      `Cannot load ${file.path}: tensors "${source}" and "${copy}" differ, but the model shares them; ${advice}`,
    );
  }
  return source;
}
