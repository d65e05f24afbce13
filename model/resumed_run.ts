/** Whether a run that goes on is the one that was saved. */
import { ConfigError } from "./config.ts";
import { modelConfigToJson } from "./config_file.ts";
import { readTrainingState } from "./files/checkpoint.ts";
import { parseJson } from "./files/json_text.ts";
import type { TrainOptions } from "./train.ts";

/** What a resumed run must have in common with the saved one, as JSON. */
export function runJson({ config, settings, recompute, dataset }: TrainOptions): string {
  return JSON.stringify({
    ...settings,
    ...settings.activationDtype === "f16" && { recompute },
    model: modelConfigToJson(config),
    text: dataset.fingerprint,
  });
}

/**
 * The step that the run in the folder has reached.
 *
 * @throws ConfigError naming the first difference between the saved run and this one.
 */
export async function resumedStep(options: TrainOptions): Promise<number> {
  const { step, run } = await readTrainingState(options.folder);
  // Runs from before there was a choice have saved none.
  const saved = flatten({ activationDtype: "f32", ...readRun(run, options.folder) });
  const current = flatten(JSON.parse(runJson(options)));
  for (const key of new Set([...saved.keys(), ...current.keys()])) {
    if (saved.get(key) === current.get(key)) continue;
    const what = key === "text"
      ? "the text is not the one the run was started with"
      : `${key} is ${current.get(key)}, the run was started with ${saved.get(key)}`;
    throw new ConfigError(
      `Cannot resume ${options.folder}: ${what}; give the same, or start a new run elsewhere`,
    );
  }
  return step;
}

function readRun(run: string, folder: string): object {
  return parseJson(run, (problem) => {
    throw new ConfigError(`Cannot resume ${folder}: what is saved of the run's settings ${problem}`);
  }) as object;
}

/** `{a: {b: 1}}` as `a.b` -> `1`. */
function flatten(value: unknown, prefix = ""): Map<string, string> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return new Map([[prefix, JSON.stringify(value)]]);
  }
  const entries = Object.entries(value);
  return new Map(entries.flatMap(([key, inner]) => [...flatten(inner, prefix ? `${prefix}.${key}` : key)]));
}
