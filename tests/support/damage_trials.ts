/** A place to damage models and load them. */
import { join } from "@std/path";
import { type Damaged, damaged, type DamagedKind } from "./damage.ts";
import { type DamageModel, damageModels, type Files } from "./damage_models.ts";
import { type LoadedModel, loadModel, type Outcome, trial, writeFiles } from "./damage_trial.ts";

export interface Damages extends AsyncDisposable {
  readonly models: readonly DamageModel[];
  /** A model by its name, as it is loaded when nothing is damaged. */
  readonly originals: ReadonlyMap<string, LoadedModel>;
  make(options: { kind: DamagedKind; seed: number }): Damaged;
  /** Loads a damaged model; fails as `trial` does. */
  run(damage: { model: DamageModel; files: Files; label: string }): Promise<Outcome>;
}

/** Makes the models, and loads each of them once. */
export async function openDamages(): Promise<Damages> {
  const models = await damageModels();
  const root = await Deno.makeTempDir();
  let folders = 0;

  /** Calls with an empty folder. */
  async function withFolder<T>(action: (folder: string) => Promise<T>): Promise<T> {
    const folder = join(root, String(folders++));
    await Deno.mkdir(folder);
    try {
      return await action(folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  }
  const originals = new Map<string, LoadedModel>();
  for (const { name, files, entry } of models) {
    const loaded = await withFolder(async (folder) => {
      await writeFiles(folder, files);
      return await loadModel(join(folder, entry));
    });
    originals.set(name, loaded);
  }
  return {
    models,
    originals,
    make: (options) => damaged(models, options),
    run: (damage) =>
      withFolder((folder) => {
        const original = originals.get(damage.model.name)!.tokenizer;
        return trial(damage, { folder, original });
      }),
    [Symbol.asyncDispose]: () => Deno.remove(root, { recursive: true }),
  };
}
