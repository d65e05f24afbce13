/** Whole models with one damaged file. */
import { join } from "@std/path";
import { damaged, type DamagedKind } from "../../support/damage.ts";
import { openDamages } from "../../support/damage_trials.ts";
import type { FuzzInput, FuzzKind } from "../fuzz_kind.ts";

/** Models of which one file of the kind is damaged. An input is named by model and file. */
export async function openModels(kind: DamagedKind): Promise<FuzzKind> {
  const damages = await openDamages();
  const { models } = damages;

  async function check({ name, bytes }: FuzzInput): Promise<boolean> {
    const [modelName, file = ""] = name.split("/");
    const model = models.find((other) => other.name === modelName)!;
    const { loaded } = await damages.run({ model, files: { ...model.files, [file]: bytes }, label: name });
    return loaded !== null;
  }
  return {
    make(seed: number): FuzzInput {
      const { model, name, files } = damaged(models, { kind, seed });
      return { name: join(model.name, name), bytes: files[name]! };
    },
    check,
    close: async () => await damages[Symbol.asyncDispose](),
  };
}
