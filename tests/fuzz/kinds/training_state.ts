/** What a training run leaves for the one that goes on with it. */
import { assert, assertEquals } from "@std/assert";
import { dirname, join } from "@std/path";
import { inheritedFlags } from "../../../cli/train_flags.ts";
import { readTrainingState } from "../../../model/files/checkpoint.ts";
import { writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { mutatedBytes } from "../../support/byte_mutations.ts";
import { mutatedSafetensors, safetensorsAnatomy, withHeader } from "../../support/damage_safetensors.ts";
import { mutatedJson } from "../../support/json_mutations.ts";
import { createRandom } from "../../support/random.ts";
import { type FuzzInput, type FuzzKind, isDone } from "../fuzz_kind.ts";

const WEIGHTS = "model.safetensors";
const STATE = "training/step-2.safetensors";
const FLAGS = { steps: 100, batch_size: 4, seed: 3, data: ["a.txt"], out: "out", activations: "f16" };
const RUN = { seed: 3, shape: { batchSize: 4, sequenceLength: 32 }, text: "abc" };

async function safetensors(
  names: readonly string[],
  metadata: Record<string, string>,
): Promise<Uint8Array<ArrayBuffer>> {
  const folder = await Deno.makeTempDir();
  async function* data(): AsyncGenerator<Uint8Array> {
    yield new Uint8Array(16);
  }
  const path = join(folder, WEIGHTS);
  const tensors = names.map((name) => ({ name, shape: [4], format: "f32", data } as const));
  await writeSafetensors(path, { tensors, metadata: { format: "pt", step: "2", ...metadata } });
  const bytes = await Deno.readFile(path);
  await Deno.remove(folder, { recursive: true });
  return bytes;
}

/** The weights of a run that is to be resumed, or the state beside them. */
export async function openTrainingState(): Promise<FuzzKind> {
  const settings = { run: JSON.stringify(RUN), flags: JSON.stringify(FLAGS) };
  const files: Readonly<Record<string, Uint8Array<ArrayBuffer>>> = {
    [WEIGHTS]: await safetensors(["a"], {}),
    [STATE]: await safetensors(["exp_avg.a", "exp_avg_sq.a"], settings),
  };

  function make(seed: number): FuzzInput {
    const random = createRandom(seed ^ 0x57a7e);
    const name = random.integer(3) === 0 ? WEIGHTS : STATE;
    const bytes = files[name]!;
    const { metadata, data } = safetensorsAnatomy(bytes);
    const changes = [
      () => mutatedBytes(bytes, { seed, headerBytes: bytes.length - data.length }),
      () => mutatedSafetensors(bytes, { seed }),
      () => withMetadata(bytes, { ...metadata, flags: mutatedJson(FLAGS, { seed }) }),
      () => withMetadata(bytes, { ...metadata, run: mutatedJson(RUN, { seed }) }),
    ];
    return { name, bytes: changes[random.integer(changes.length)]!() };
  }
  async function check({ name, bytes }: FuzzInput, folder: string): Promise<boolean> {
    await Deno.mkdir(join(folder, dirname(STATE)));
    for (const [other, own] of Object.entries(files)) {
      await Deno.writeFile(join(folder, other), other === name ? bytes : own);
    }
    return await isDone(async () => {
      const state = await readTrainingState(folder);
      const flags = inheritedFlags(state.flags);
      assertEquals(state.step, 2);
      const { metadata = {} } = safetensorsAnatomy(name === STATE ? bytes : files[STATE]!);
      const truth = JSON.parse(metadata.flags ?? "{}");
      for (const [key, value] of Object.entries(flags)) {
        assertEquals(
          value as unknown,
          [truth[key]].flat().length && key === "data" ? [truth[key]].flat() : truth[key],
        );
      }
      assert(!("out" in flags), "the folder of another call");
    }, { names: [folder, "saved with the run"] });
  }
  return { make, check };
}

function withMetadata(
  bytes: Uint8Array<ArrayBuffer>,
  metadata: Record<string, string>,
): Uint8Array<ArrayBuffer> {
  const { data } = safetensorsAnatomy(bytes);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, bytes.length - data.length)));
  return withHeader(JSON.stringify({ ...header, __metadata__: metadata }), data);
}
