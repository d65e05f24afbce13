/**
 * Damaged models are refused in one line, or loaded as their files say.
 *
 * What a file says is read without the product (support/damage_truth.ts): names, shapes, types and places of tensors,
 * every number of the configuration, the facts that tokens follow from. Only what no reader can notice may pass: a
 * tensor's own numbers, and a value that is as possible as the one that was there.
 */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { DAMAGED_FILES, type DamagedKind } from "../../support/damage.ts";
import { ggufAnatomy } from "../../support/damage_gguf.ts";
import { openDamages } from "../../support/damage_trials.ts";
import { trueModel } from "../../support/damage_truth.ts";
import { createRandom } from "../../support/random.ts";

Deno.test("the models that are to be damaged say what they are", async () => {
  await using damages = await openDamages();
  for (const { name, files } of damages.models) {
    const { weights, config, tokenizer } = damages.originals.get(name)!;
    const truth = trueModel(files);
    assertEquals([...weights.keys()].sort(), [...truth.tensors.keys()].sort());
    assertEquals(config.hiddenSize, truth.config.hiddenSize);
    assertGreater(tokenizer.ids[1]!.length, 1);
    assertEquals(tokenizer.chat?.includes("Hello") ?? false, ["quantized", "gguf_text"].includes(name));
  }
});

const MUTATIONS = 125;

for (const kind of Object.keys(DAMAGED_FILES) as DamagedKind[]) {
  Deno.test(`${MUTATIONS} models with damage of the kind ${kind} are loaded as their files say, or refused`, async () => {
    await using damages = await openDamages();
    let loaded = 0;
    for (let seed = 0; seed < MUTATIONS; seed++) {
      if ((await damages.run(damages.make({ kind, seed }))).loaded) loaded++;
    }
    // Damage that is never noticed, or always, would prove little.
    assert(loaded > MUTATIONS / 20 && loaded < MUTATIONS / 2, `${loaded} loaded`);
  });
}

/** Places of the characters of the names that a file's fields have. */
const NAMES: Readonly<Record<string, (bytes: Uint8Array<ArrayBuffer>) => number[]>> = {
  "config.json": (bytes) => {
    const names = new TextDecoder().decode(bytes).matchAll(/(?<=^ +")\w+(?=":)/gm);
    return Array.from(names, ({ 0: name, index }) => places(index, name)).flat();
  },
  "text.gguf": (bytes) =>
    [...ggufAnatomy(bytes).values].flatMap(([key, { span }]) => places(span.begin + 8, key)),
};

function places(begin: number, text: string): number[] {
  return Array.from(text, (_, i) => begin + i);
}

for (const [file, placesOf] of Object.entries(NAMES)) {
  Deno.test(`a flipped bit in a name of ${file} does not change the model unnoticed`, async () => {
    await using damages = await openDamages();
    const random = createRandom(3);
    for (const model of damages.models.filter(({ files }) => file in files)) {
      const original = damages.originals.get(model.name)!;
      for (const place of placesOf(model.files[file]!)) {
        const bytes = model.files[file]!.slice();
        bytes[place]! ^= 1 << random.integer(7);
        const label = `${model.name}/${file}, byte ${place}`;
        const { loaded } = await damages.run({ model, files: { ...model.files, [file]: bytes }, label });
        if (!loaded) continue;
        assertEquals({ ...loaded.config, extra: {} }, { ...original.config, extra: {} }, label);
        assertEquals(loaded.tokenizer, original.tokenizer, label);
      }
    }
  });
}
