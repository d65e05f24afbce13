/** Small files of JSON, damaged. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { readInput } from "../../../cli/forward.ts";
import { MetricsLog } from "../../../cli/metrics.ts";
import { resolveFlags } from "../../../cli/train_flags.ts";
import { keepTuning, readTuning, TuningFileError } from "../../../cli/tuning_file.ts";
import { mutatedBytes } from "../../support/byte_mutations.ts";
import { mutatedJson } from "../../support/json_mutations.ts";
import { kept } from "../../support/kept_tuning.ts";
import { tinyConfig } from "../../reference/tiny_model.ts";
import { type FuzzInput, type FuzzKind, isDone } from "../fuzz_kind.ts";
import { mutatedLines } from "./texts.ts";

type Fields = Record<string, unknown>;

/** Inputs that are one damaged JSON text. */
function damagedText(json: object, name: string): FuzzKind["make"] {
  return (seed) => {
    const bytes = new TextEncoder().encode(mutatedJson(json, { seed }));
    return {
      name,
      bytes: seed % 4 === 0 ? mutatedBytes(bytes, { seed, headerBytes: bytes.length }) : bytes,
    };
  };
}

const TRAIN_CONFIG = {
  model: "tiny",
  data: ["a.txt", "b.jsonl"],
  text_field: "text",
  out: "out",
  steps: 100,
  batch_size: 4,
  learning_rate: 0.001,
  warmup_steps: 10,
  weight_decay: 0.1,
  seed: 3,
  validation_fraction: 0.1,
  sample_prompt: "The ",
  recompute: true,
  activations: "f16",
};

/** `mor train --config`. */
export function openTrainConfig(): Promise<FuzzKind> {
  async function check({ name, bytes }: FuzzInput, folder: string): Promise<boolean> {
    const config = join(folder, name);
    await Deno.writeFile(config, bytes);
    return await isDone(async () => {
      const flags = await resolveFlags({ config });
      const truth = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as Fields;
      const { data, ...rest } = truth;
      for (const [key, value] of Object.entries(rest)) assertEquals((flags as Fields)[key], value, key);
      assertEquals(flags.data, data === undefined ? undefined : [data].flat());
      assert(Number.isSafeInteger(flags.steps) && flags.steps > 0, "steps");
      assert(flags.learning_rate > 0 && flags.learning_rate < Infinity, "learning_rate");
    }, { names: [config] });
  }
  return Promise.resolve({ make: damagedText(TRAIN_CONFIG, "run.json"), check });
}

const IDS = { input_ids: [[1, 2, 3], [4, 5, 6]], targets: [[2, 3, 4], [5, 6, 0]] };

/** `mor forward --ids`. */
export function openIds(): Promise<FuzzKind> {
  const config = tinyConfig({ vocabSize: 50 });
  async function check({ name, bytes }: FuzzInput, folder: string): Promise<boolean> {
    const ids = join(folder, name);
    await Deno.writeFile(ids, bytes);
    return await isDone(async () => {
      const input = await readInput({ ids }, { config });
      const truth = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
      assertEquals(input, { ids: truth.input_ids, targets: truth.targets ?? null });
      assert(
        input.ids.flat().every((id) => Number.isInteger(id) && id >= 0 && id < 50),
        "an id that is none",
      );
    }, { names: [ids] });
  }
  return Promise.resolve({ make: damagedText(IDS, "ids.json"), check });
}

/** What measurements are kept in: damage may cost them, but never stops a command. */
export function openTuning(): Promise<FuzzKind> {
  async function check({ name, bytes }: FuzzInput, folder: string): Promise<boolean> {
    const path = join(folder, name);
    await Deno.writeFile(path, bytes);
    let isAccepted = true;
    try {
      const read = await readTuning(path, "a key");
      const truth = JSON.parse(new TextDecoder().decode(bytes)).tunings["a key"];
      if (read === null) assertEquals(truth, undefined);
      else {for (const [name, choice] of Object.entries(read.choices)) {
          assertEquals(choice, truth.choices[name]);
        }}
    } catch (error) {
      if (!(error instanceof TuningFileError)) throw error;
      assertMatch(error.message, /^\P{Cc}{10,1300}$/u);
      assert(error.message.includes(path), error.message);
      isAccepted = false;
    }
    await keepTuning(path, { key: "another", tuning: kept });
    assertEquals(await readTuning(path, "another"), kept);
    return isAccepted;
  }
  const json = { tunings: { "a key": kept, "other": { ...kept, choices: {} } } };
  return Promise.resolve({ make: damagedText(json, "tuning.json"), check });
}

const METRICS = [1, 2, 3, 4, 5].map((step) => ({
  step,
  tokens: 64 * step,
  loss: 3.5,
  depth_fractions: [0.5, 0.5],
}));

/** A run's log when it goes on after step 3: what was whole of it stays. */
export function openMetrics(): Promise<FuzzKind> {
  async function check({ name, bytes }: FuzzInput, folder: string): Promise<boolean> {
    const path = join(folder, name);
    await Deno.writeFile(path, bytes);
    (await MetricsLog.open(folder, { resumedStep: 3 }))[Symbol.dispose]();
    const isWanted = (line: string): boolean => {
      try {
        const { step } = JSON.parse(line);
        return Number.isInteger(step) && step <= 3;
      } catch {
        return false;
      }
    };
    const before = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes).split("\n");
    const after = (await Deno.readTextFile(path)).split("\n");
    assertEquals(after.pop(), "");
    assertEquals(after, before.filter(isWanted));
    return after.length > 0;
  }
  const make = (seed: number): FuzzInput => ({
    name: "metrics.jsonl",
    bytes: mutatedLines(METRICS, { seed }),
  });
  return Promise.resolve({ make, check });
}
