/**
 * Which kernels a command runs with: those that were measured to be the fastest on the adapter, at its first use or by
 * `mor doctor --tune`, else the defaults.
 *
 * Lavapipe with its eight lanes is not measured at first use: its defaults are measurements already, and until the
 * driver has compiled every candidate once, measuring takes ten seconds.
 *
 * Results of two choices differ by rounding. So no choice is used at first use that cannot be kept: the next run might
 * measure another, and the same command would give something else.
 */
import { ValidationError } from "@cliffy/command";
import { join } from "@std/path";
import type { GpuDevice } from "../gpu/device.ts";
import { GpuError, GpuUnavailableError, MemoryError } from "../gpu/errors.ts";
import { hasSubgroupsOfEight } from "../gpu/kernels/row_lanes.ts";
import { tuningKey } from "../gpu/tuning/key.ts";
import { measureTuning, type TuningReport } from "../gpu/tuning/measure.ts";
import { cacheFolder } from "./cache_folder.ts";
import { isFileError } from "./errors.ts";
import type { Terminal } from "./terminal.ts";
import { keepTuning, readTuning, TuningFileError, withTuningLock } from "./tuning_file.ts";
import { CACHE_PARTS } from "./written_paths.ts";

/** Says `off` where the defaults are wanted: by tests, or to compute the same on several machines. */
const VARIABLE = "MOR_TUNING";

/** When the choices in force were measured, in UTC; null for the defaults. */
export type TuningDate = string | null;

/** Where notes go, and what tests put in place of the usual. */
export interface TuningOptions {
  readonly terminal: Pick<Terminal, "note">;
  /** Where choices are kept; null for nowhere. In the user's cache unless given. */
  readonly path?: string | null;
  /** `measureTuning` unless given. */
  readonly measure?: () => Promise<TuningReport>;
}

/** What `mor doctor --tune` measured. */
export interface MeasuredTuning {
  readonly report: TuningReport;
  readonly measured: string;
  /** Where it was kept; null where it could not be. */
  readonly path: string | null;
}

function usualPath(): string | null {
  const folder = cacheFolder();
  return folder && join(folder, CACHE_PARTS.tuning, "adapters.json");
}

/** @throws ValidationError for a value that means nothing. */
function isOff(): boolean {
  const value = Deno.env.get(VARIABLE) || null;
  if (value !== null && value !== "off") {
    throw new ValidationError(`${VARIABLE} is "${value}", wanted off, or nothing for measured kernels`);
  }
  return value === "off";
}

/** Gives the device the choices that have been kept for it, if there are any; a file that cannot be used is named. */
export async function useKeptTuning(
  device: GpuDevice,
  { terminal, path = usualPath() }: TuningOptions,
): Promise<TuningDate> {
  if (isOff() || path === null) return null;
  try {
    const kept = await readTuning(path, await tuningKey(device));
    if (kept === null) return null;
    device.tuning = kept.choices;
    return kept.measured;
  } catch (error) {
    if (!(error instanceof TuningFileError)) throw error;
    terminal.note(`tuning: ${error.message}; \`mor doctor --tune\` writes it anew`);
    return null;
  }
}

/** Gives the device its kept choices. Where there are none, and the adapter is not known, they are measured first. */
export async function tuneDevice(device: GpuDevice, options: TuningOptions): Promise<void> {
  const { terminal, path = usualPath() } = options;
  const date = await useKeptTuning(device, options);
  if (date !== null || isOff() || hasSubgroupsOfEight(device)) return;
  if (path === null) {
    terminal.note(
      "tuning: the defaults are used; kernels are measured once XDG_CACHE_HOME or HOME says where to keep it",
    );
    return;
  }
  try {
    await withTuningLock(path, async () => {
      // Another process may have measured while this one waited for the lock.
      const quietly = { ...options, terminal: { note: () => {} } };
      if (await useKeptTuning(device, quietly) === null) await measureAndKeep(device, { ...options, path });
    });
  } catch (error) {
    if (!isExcused(error)) throw error;
    terminal.note(`tuning: ${error.message}; the defaults are used`);
  }
}

/** Measures anew, whatever is kept, and gives the device what was found; what cannot be kept is shown all the same. */
export async function retuneDevice(device: GpuDevice, options: TuningOptions): Promise<MeasuredTuning> {
  const { terminal, path = usualPath(), measure = measureTuning } = options;
  try {
    if (path === null) {
      throw new TuningFileError("there is no cache folder: neither XDG_CACHE_HOME nor HOME is set");
    }
    return await withTuningLock(path, () => measureAndKeep(device, { ...options, path }));
  } catch (error) {
    if (!(error instanceof TuningFileError) && !isFileError(error)) throw error;
    terminal.note(`tuning: ${error.message}; what is measured is not kept, and other commands do not use it`);
    const report = await measure();
    device.tuning = report.tuning;
    return { report, measured: new Date().toISOString(), path: null };
  }
}

async function measureAndKeep(
  device: GpuDevice,
  { terminal, path, measure = measureTuning }: TuningOptions & { path: string },
): Promise<MeasuredTuning> {
  const report = await measure();
  const measured = new Date().toISOString();
  const tuning = { adapter: device.info.description, measured, choices: report.tuning };
  await keepTuning(path, { key: await tuningKey(device), tuning });
  device.tuning = report.tuning;
  const trials = report.cases.flatMap(({ choice, trials }) => trials.map((trial) => ({ choice, ...trial })));
  for (const { choice, candidate, milliseconds, note } of trials) {
    if (milliseconds === null) terminal.note(`tuning: ${choice} ${candidate} is left out: ${note}`);
  }
  const seconds = (report.milliseconds / 1000).toFixed(1);
  terminal.note(`tuning: measured ${trials.length} kernels in ${seconds} s; kept in ${path}`);
  return { report, measured, path };
}

/** Whether a command can go on without what has failed. */
function isExcused(error: unknown): error is Error {
  return [TuningFileError, GpuError, GpuUnavailableError, MemoryError].some((kind) =>
    error instanceof kind
  ) ||
    isFileError(error);
}
