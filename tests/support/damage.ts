/** Damaged models: which file is damaged, and how, follows from the seed. */
import { mutatedBytes } from "./byte_mutations.ts";
import { ggufAnatomy, mutatedGguf } from "./damage_gguf.ts";
import type { DamageModel, Files } from "./damage_models.ts";
import { mutatedSafetensors, safetensorsAnatomy } from "./damage_safetensors.ts";
import { parseText } from "./damage_truth.ts";
import { mutatedJson } from "./json_mutations.ts";
import { createRandom, type Random } from "./random.ts";

/** Kinds of files, by the names of those that belong to them. */
export const DAMAGED_FILES = {
  safetensors: /\.safetensors(\.index\.json)?$/,
  gguf: /\.gguf$/,
  config: /^config\.json$/,
  tokenizer: /^tokenizer(_config)?\.json$/,
} as const;

export type DamagedKind = keyof typeof DAMAGED_FILES;

export interface Damaged {
  readonly model: DamageModel;
  /** The file that is not the model's own any more. */
  readonly name: string;
  readonly files: Files;
  /** Says how to make it again. */
  readonly label: string;
}

/** One of the models with one of its files of a kind damaged. */
export function damaged(
  models: readonly DamageModel[],
  { kind, seed }: { kind: DamagedKind; seed: number },
): Damaged {
  const random = createRandom(seed ^ 0x5eed);
  const pick = <T>(choices: readonly T[]): T => choices[random.integer(choices.length)]!;
  const targets = models.flatMap((model) =>
    Object.keys(model.files).filter((name) => DAMAGED_FILES[kind].test(name)).map((name) => ({ model, name }))
  );
  const { model, name } = pick(targets);
  const original = model.files[name]!;
  const isSwap = random.integer(25) === 0;
  const bytes = isSwap
    ? pick(models.flatMap(({ files }) => Object.values(files)))
    : changed(original, { name, seed, random });
  return {
    model,
    name,
    files: { ...model.files, [name]: bytes },
    label: `${kind} ${seed}: ${model.name}/${name}${isSwap ? ", swapped" : ""}`,
  };
}

function changed(
  bytes: Uint8Array<ArrayBuffer>,
  { name, seed, random }: { name: string; seed: number; random: Random },
): Uint8Array<ArrayBuffer> {
  const isByBytes = random.integer(3) === 0;
  if (name.endsWith(".gguf")) {
    const { length } = ggufAnatomy(bytes);
    return isByBytes ? mutatedBytes(bytes, { seed, headerBytes: length }) : mutatedGguf(bytes, { seed });
  }
  if (name.endsWith(".json")) {
    return isByBytes
      ? mutatedBytes(bytes, { seed, headerBytes: bytes.length })
      : new TextEncoder().encode(mutatedJson(parseText(bytes) as object, { seed }));
  }
  const { data } = safetensorsAnatomy(bytes);
  return isByBytes
    ? mutatedBytes(bytes, { seed, headerBytes: bytes.length - data.length })
    : mutatedSafetensors(bytes, { seed });
}
