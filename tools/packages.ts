/**
 * Which packages a job uses: the real ones of deno.json, or, where the JSR registry cannot be reached, the stand-ins
 * in offline/ under the same names.
 *
 * Locks. offline/deno.lock pins the npm packages of the stand-ins' configuration and is used frozen. deno.lock is
 * what Deno writes for the npm packages of deno.json at every `deno task`. A lock with the JSR packages can only be
 * made where their registry answers, so that one starts as a copy of deno.lock in the ignored folder .mor/, where
 * Deno adds to it: versions are pinned in deno.json, and published versions never change. So no task alters a file
 * of the checkout.
 */
import { runSilently, say } from "./processes.ts";

/** The configuration and lock a job runs with. */
export interface Packages {
  readonly isReal: boolean;
  /** Flags for any `deno` command. */
  readonly flags: readonly string[];
  /** The configuration alone, for commands that know no locks. */
  readonly config: string;
}

/** Everything set-up writes goes here; git ignores it. */
export const WORK_FOLDER = ".mor";
const REAL_LOCK = `${WORK_FOLDER}/deno.lock`;
const OFFLINE_LOCK = "offline/deno.lock";
const OFFLINE_CONFIG = "deno.offline.json";
const UNREACHABLE_MARK = `${WORK_FOLDER}/packages_unreachable`;
/** A failed try is not repeated for this long; only time is lost by it, the stand-ins do the same work. */
const RETRY_AFTER_MS = 60 * 60 * 1000;
/** A registry that says nothing for this long is not there. */
const SILENCE_MS = 6000;

/** Whether a try of that age (in ms) need not be repeated; one in the future is of a clock that has been set back since. */
export function isRecentTry(age: number): boolean {
  return age >= 0 && age < RETRY_AFTER_MS;
}

async function ageOf(path: string): Promise<number> {
  try {
    const { mtime } = await Deno.stat(path);
    return Date.now() - (mtime?.getTime() ?? 0);
  } catch {
    return Infinity;
  }
}

/** Writes a whole file at once: tasks may run side by side. */
async function writeIfChanged(path: string, text: string): Promise<void> {
  if (await Deno.readTextFile(path).catch(() => null) === text) return;
  const temporary = `${WORK_FOLDER}/${crypto.randomUUID()}`;
  await Deno.writeTextFile(temporary, text);
  await Deno.rename(temporary, path);
}

async function offlineFolders(): Promise<string[]> {
  const folders: string[] = [];
  for await (const entry of Deno.readDir("offline")) {
    if (entry.isDirectory) folders.push(`./offline/${entry.name}`);
  }
  return folders.sort();
}

async function offlinePackages(): Promise<Packages> {
  const config = JSON.parse(await Deno.readTextFile("deno.json"));
  const offline = {
    ...config,
    links: await offlineFolders(),
    lock: { path: `./${OFFLINE_LOCK}`, frozen: true },
  };
  await writeIfChanged(OFFLINE_CONFIG, `${JSON.stringify(offline, null, 2)}\n`);
  return { isReal: false, flags: ["--config", OFFLINE_CONFIG], config: OFFLINE_CONFIG };
}

async function realPackages(): Promise<Packages> {
  if (await ageOf(REAL_LOCK) === Infinity) {
    await writeIfChanged(REAL_LOCK, await Deno.readTextFile("deno.lock"));
  }
  return { isReal: true, flags: ["--config", "deno.json", "--lock", REAL_LOCK], config: "deno.json" };
}

/** Tries to have everything `entries` import in Deno's cache. */
async function cache(packages: Packages, entries: readonly string[], ...flags: string[]): Promise<boolean> {
  const command = ["deno", "cache", ...flags, ...packages.flags, ...entries] as const;
  return (await runSilently([...command], { silenceMs: SILENCE_MS })).code === 0;
}

/** Where to look and how loud: `entries` are the files the job runs. */
export interface PackageRequest {
  readonly entries: readonly string[];
  /** Mention the stand-ins even if an earlier job has. */
  readonly isChatty: boolean;
  /** Try the registry even if it was away a moment ago. */
  readonly retry?: boolean;
}

/** Finds the packages for a job: the cache first, then the registry, then the stand-ins. */
export async function choosePackages(
  { entries, isChatty, retry = false }: PackageRequest,
): Promise<Packages> {
  await Deno.mkdir(WORK_FOLDER, { recursive: true });
  const real = await realPackages();
  if (await cache(real, entries, "--cached-only")) return real;
  const triedBefore = !retry && isRecentTry(await ageOf(UNREACHABLE_MARK));
  if (!triedBefore) {
    if (await cache(real, entries)) return real;
    await Deno.writeTextFile(UNREACHABLE_MARK, "");
  }
  if (isChatty || !triedBefore) {
    say("packages: the JSR registry cannot be reached, using the stand-ins in offline/ under the same names");
  }
  return await offlinePackages();
}

/** Makes both locks anew after a change of dependencies in deno.json or offline/. */
export async function updateLocks(entries: readonly string[]): Promise<number> {
  await Deno.mkdir(WORK_FOLDER, { recursive: true });
  const { config } = await offlinePackages();
  const command = ["deno", "cache", "--config", config, "--frozen=false", ...entries] as const;
  const { code, errors } = await runSilently([...command], { silenceMs: 60_000 });
  if (code !== 0) say(errors);
  await Deno.remove(REAL_LOCK).catch(() => {});
  return code;
}
