/** Folders with the weights of the authors' PyTorch code. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { modelConfigToJson } from "../../../model/config_file.ts";
import { authorsLayout } from "../../../model/exchange/authors_layout.ts";
import { openCheckpoint } from "../../../model/files/checkpoint_source.ts";
import { readWeight } from "../../../model/files/weight_file.ts";
import { parameterTable } from "../../../model/parameters.ts";
import { writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { encodeNumbers } from "../../../model/files/number_formats.ts";
import { mutatedBytes } from "../../support/byte_mutations.ts";
import { mutatedSafetensors, safetensorsAnatomy } from "../../support/damage_safetensors.ts";
import { authorsCases } from "../../support/export_cases.ts";
import { mutatedJson } from "../../support/json_mutations.ts";
import { seededNumbers } from "../../support/memory_weights.ts";
import { createRandom } from "../../support/random.ts";
import { type FuzzInput, type FuzzKind, isDone } from "../fuzz_kind.ts";

const WEIGHTS = "model.safetensors";
const CONFIG = "config.json";

type Bytes = Uint8Array<ArrayBuffer>;

/** One of their models with its weights or its config.json damaged; an input is named by model and file. */
export async function openAuthors(): Promise<FuzzKind> {
  const models = new Map<string, Readonly<Record<string, Bytes>>>();
  for (const [name, config] of Object.entries(authorsCases)) {
    const json = new TextEncoder().encode(JSON.stringify(modelConfigToJson(config)));
    const tensors = authorsLayout(config).flatMap(({ spec, names }) => {
      async function* data(): AsyncGenerator<Uint8Array> {
        yield encodeNumbers("f32", seededNumbers(spec, 6));
      }
      return names.map((name) => ({ name, shape: spec.shape, format: "f32", data } as const));
    });
    const folder = await Deno.makeTempDir();
    await writeSafetensors(join(folder, WEIGHTS), { tensors, metadata: { format: "pt" } });
    models.set(name, { [CONFIG]: json, [WEIGHTS]: await Deno.readFile(join(folder, WEIGHTS)) });
    await Deno.remove(folder, { recursive: true });
  }

  function make(seed: number): FuzzInput {
    const random = createRandom(seed ^ 0xa07);
    const name = [...models.keys()][random.integer(models.size)]!;
    const files = models.get(name)!;
    if (random.integer(4) === 0) {
      const json = JSON.parse(new TextDecoder().decode(files[CONFIG]));
      return { name: `${name}/${CONFIG}`, bytes: new TextEncoder().encode(mutatedJson(json, { seed })) };
    }
    const weights = files[WEIGHTS]!;
    const headerBytes = weights.length - safetensorsAnatomy(weights).data.length;
    const bytes = random.integer(3) === 0
      ? mutatedBytes(weights, { seed, headerBytes: random.integer(2) === 0 ? headerBytes : weights.length })
      : mutatedSafetensors(weights, { seed });
    return { name: `${name}/${WEIGHTS}`, bytes };
  }
  async function check({ name, bytes }: FuzzInput, folder: string): Promise<boolean> {
    const [model = "", file = ""] = name.split("/");
    const files = { ...models.get(model)!, [file]: bytes };
    for (const [other, content] of Object.entries(files)) await Deno.writeFile(join(folder, other), content);
    return await isDone(async () => {
      const { config, openWeights } = await openCheckpoint(folder);
      using opened = await openWeights();
      const { tensors, data } = safetensorsAnatomy(files[WEIGHTS]!);
      const stored = new Set(
        Array.from(tensors.values(), ({ data_offsets: [begin, end] }) => hexOf(data.subarray(begin, end))),
      );
      for (const { name, shape } of parameterTable(config)) {
        const numbers = await readWeight(opened, { name, shape });
        if (opened.entries.get(name)!.format !== "f32") continue;
        assert(
          stored.has(hexOf(new Uint8Array(numbers.buffer))),
          `${name} has numbers that are not in the file`,
        );
      }
      assertEquals(opened.others.size, 0);
    }, { names: [folder] });
  }
  return { make, check };
}

function hexOf(bytes: Uint8Array): string {
  return bytes.toHex();
}
