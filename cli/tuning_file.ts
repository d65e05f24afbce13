/** Measured choices of kernels, kept from run to run: one file in the user's cache, an entry for each adapter and version. */
import { dirname } from "@std/path";
import { z } from "zod";
import { ATTENTION_VARIANTS } from "../gpu/kernels/attention_variants.ts";
import { CACHED_VARIANTS } from "../gpu/kernels/attention_cached.ts";
import { MATMUL_VARIANTS } from "../gpu/kernels/matmul.ts";
import { PANEL_VARIANTS, VECTOR_VARIANTS } from "../gpu/kernels/matmul_vector.ts";
import { type Tuning, VECTOR_ROWS } from "../gpu/tuning/tuning.ts";
import { writeJson } from "../model/files/whole_file.ts";
import { isFileError } from "./errors.ts";

/** Choices and where they come from. */
export interface KeptTuning {
  /** For people who read the file. */
  readonly adapter: string;
  /** When they were measured, in UTC: `2026-11-24T09:30:00.000Z`. */
  readonly measured: string;
  readonly choices: Tuning;
}

/** The file cannot be used. */
export class TuningFileError extends Error {
  override readonly name = "TuningFileError";
}

/** Entries beyond these, the oldest, are dropped: each version of the kernels leaves one. */
const MOST_ENTRIES = 16;

function namesOf<Name extends string>(variants: Readonly<Record<Name, unknown>>): z.ZodType<Name> {
  return z.enum(Object.keys(variants) as [Name, ...Name[]]) as unknown as z.ZodType<Name>;
}

const choices: z.ZodType<Tuning> = z.object({
  matmul: namesOf(MATMUL_VARIANTS),
  matmulFewRows: namesOf(MATMUL_VARIANTS),
  matmulGradient: namesOf(MATMUL_VARIANTS),
  matmulVector: namesOf(VECTOR_VARIANTS),
  matmulPanel: namesOf(PANEL_VARIANTS),
  vectorRows: z.literal(VECTOR_ROWS),
  attention: namesOf(ATTENTION_VARIANTS),
  attentionCached: namesOf(CACHED_VARIANTS),
});

const entry = z.object({ adapter: z.string(), measured: z.iso.datetime(), choices });

/** An entry of any version; what else stands in the file is not kept, and might not be possible to write again. */
const anyEntry = z.object({
  ...entry.shape,
  choices: z.record(z.string(), z.union([z.string(), z.number()])),
});

/** Entries are checked when they are asked for: those of other versions have variants of their own. */
const fileSchema = z.object({ tunings: z.record(z.string(), z.unknown()) });

/**
 * The choices that were measured for a key; null if there are none.
 *
 * @throws TuningFileError when the file is there and cannot be used.
 */
export async function readTuning(path: string, key: string): Promise<KeptTuning | null> {
  const kept = (await readEntries(path))[key];
  if (kept === undefined) return null;
  const { success, data } = entry.safeParse(kept);
  if (!success) throw damaged(path);
  return data;
}

/**
 * Adds choices to the file; what it held is lost if it cannot be used.
 *
 * @throws Deno.errors when it cannot be written.
 */
export async function keepTuning(
  path: string,
  { key, tuning }: { key: string; tuning: KeptTuning },
): Promise<void> {
  const known = await readEntries(path).catch((error) => {
    if (error instanceof TuningFileError) return {};
    throw error;
  });
  const others = Object.entries(known).flatMap(([other, kept]) => {
    const { success, data } = anyEntry.safeParse(kept);
    return success && other !== key ? [[other, data] as const] : [];
  });
  // The newest come last.
  const tunings = Object.fromEntries([...others, [key, tuning]].slice(-MOST_ENTRIES));
  await writeJson(path, { tunings });
}

/**
 * Does work while no other process does any under the same file: of several that find nothing measured, the first
 * measures and the others find what it has kept.
 *
 * @throws TuningFileError when the file's folder cannot be written to, before the work.
 */
export async function withTuningLock<T>(path: string, work: () => Promise<T>): Promise<T> {
  using lock = await openLock(path);
  try {
    await lock.lock(true);
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
  // Closing the file unlocks it, as the end of a killed process does.
  return await work();
}

async function openLock(path: string): Promise<Deno.FsFile> {
  try {
    await Deno.mkdir(dirname(path), { recursive: true });
    return await Deno.open(`${path}.lock`, { write: true, create: true });
  } catch (cause) {
    throw cannotWrite(path, cause);
  }
}

function cannotWrite(path: string, cause: unknown): unknown {
  return isFileError(cause)
    ? new TuningFileError(`cannot write ${path}: ${cause.message}`, { cause })
    : cause;
}

async function readEntries(path: string): Promise<Readonly<Record<string, unknown>>> {
  let text: string;
  try {
    text = await Deno.readTextFile(path);
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.NotADirectory) return {};
    if (!isFileError(cause)) throw cause;
    throw new TuningFileError(`cannot read ${path}: ${cause.message}`, { cause });
  }
  try {
    return fileSchema.parse(JSON.parse(text)).tunings;
  } catch (cause) {
    throw damaged(path, cause);
  }
}

function damaged(path: string, cause?: unknown): TuningFileError {
  return new TuningFileError(`${path} is damaged`, { cause });
}
