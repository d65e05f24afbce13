/** A training run of a second or two, and what it leaves behind. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { readTrainingState } from "../../model/files/checkpoint.ts";
import { modelConfigToJson } from "../../model/config_file.ts";
import { presetConfig } from "../../model/presets.ts";
import { type GoldenTensor, readTensors } from "./golden.ts";
import { corpus } from "./program.ts";

/** Steps of the run that `smallRun` describes. */
export const SMALL_RUN_STEPS = 6;

/** Tokens of one of its steps. */
export const SMALL_RUN_TOKENS = 64;

const SMALL_RUN = {
  "--model": "tiny",
  "--data": corpus,
  "--batch-size": "2",
  "--sequence-length": "32",
  "--steps": String(SMALL_RUN_STEPS),
  "--eval-every": "3",
  "--save-every": "2",
};

/** Arguments of `mor` for a run of the smallest preset on the corpus; those in `more` replace its own. */
export function smallRun(folder: string, ...more: readonly string[]): string[] {
  const own = Object.entries(SMALL_RUN).filter(([flag]) => !more.includes(flag));
  return ["train", "--out", folder, ...own.flat(), ...more];
}

/** Writes a preset's config.json with other values in some fields. Returns its path. */
export async function writeConfig(
  path: string,
  { preset = "tiny", change }: { preset?: string; change: Readonly<Record<string, unknown>> },
): Promise<string> {
  await Deno.writeTextFile(path, JSON.stringify({ ...modelConfigToJson(presetConfig(preset)), ...change }));
  return path;
}

/** A line of metrics.jsonl. */
export interface Metrics {
  readonly step: number;
  readonly tokens: number;
  readonly loss: number;
  readonly tokens_per_second: number;
  readonly [name: string]: unknown;
}

/** The lines of a run's metrics.jsonl. */
export async function readMetrics(folder: string): Promise<Metrics[]> {
  const lines = (await Deno.readTextFile(join(folder, "metrics.jsonl"))).split("\n");
  assertEquals(lines.pop(), "", "metrics.jsonl ends inside a line");
  return lines.map((line) => JSON.parse(line));
}

/** What must repeat from run to run: everything but the speed. */
export function withoutSpeed(metrics: readonly Metrics[]): Record<string, unknown>[] {
  return metrics.map(({ tokens_per_second: _, ...rest }) => rest);
}

function tensorsIn(path: string): Map<string, GoldenTensor> {
  return readTensors(new URL(`file://${path}`));
}

/** The step that the weights and their training state were saved at. */
export async function savedStep(folder: string): Promise<number> {
  return (await readTrainingState(folder)).step;
}

/** Every tensor of a run, weights and training state; reading fails for a file that is not whole. */
export async function checkpointTensors(folder: string): Promise<Map<string, GoldenTensor>> {
  const weights = tensorsIn(join(folder, "model.safetensors"));
  const state = tensorsIn(join(folder, "training", `step-${await savedStep(folder)}.safetensors`));
  return new Map([...weights, ...state]);
}

/** Checks that two runs saved the same bits. */
export async function assertSameCheckpoints(actual: string, expected: string): Promise<void> {
  const [met, wanted] = [await checkpointTensors(actual), await checkpointTensors(expected)];
  assertEquals([...met.keys()], [...wanted.keys()]);
  for (const [name, { shape, data }] of wanted) {
    const tensor = met.get(name)!;
    assertEquals(tensor.shape, shape, name);
    const [bits, wantedBits] = [tensor.data, data].map(({ buffer }) => new Uint32Array(buffer));
    assertEquals(bits!.findIndex((value, i) => value !== wantedBits![i]), -1, `${name} differs in a bit`);
  }
}
