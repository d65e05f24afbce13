/** What each kind of job may do; everything else is denied without a question. */
import { cacheFolder } from "../cli/cache_folder.ts";
import { commandOf, NETWORK_COMMAND, writtenPaths } from "../cli/written_paths.ts";

/** Variables that the program and its packages read, and no others. */
const PROGRAM_VARIABLES = [
  "DENO_WEBGPU_BACKEND",
  "XDG_RUNTIME_DIR",
  "XDG_CACHE_HOME",
  "HOME",
  "LOCALAPPDATA",
  "NO_COLOR",
  "FORCE_COLOR",
  "CLICOLOR_FORCE",
  "TERM",
  "COLUMNS",
  "CI",
  "MOR_TUNING",
];

/** Flags for main.ts whatever the command: it reads any file the user names, has no network and no other programs. */
export const PROGRAM_PERMISSIONS: readonly string[] = [
  "--no-prompt",
  "--allow-read",
  `--allow-env=${PROGRAM_VARIABLES.join(",")}`,
  // A software adapter's buffers are host memory: how much of it is free is asked before they are made.
  "--allow-sys=systemMemoryInfo",
];

/** For commands whose arguments do not say what they write, and for a binary that has one set for all commands. */
export const WRITE_ANYWHERE: readonly string[] = ["--allow-write"];

/**
 * Flags that `pull` gets besides. Any host: the Hub, and any mirror that HF_ENDPOINT names, redirects large files to
 * hosts of its own choice, which change.
 */
export const NETWORK_PERMISSIONS: readonly string[] = ["--allow-net", "--allow-env=HF_TOKEN,HF_ENDPOINT"];

/** What `bench compare` gets besides to run another revision of the program: to check it out and to start it. */
export const REVISION_PERMISSIONS: readonly string[] = ["--allow-run=deno,git"];

/** Whether these arguments compare revisions: the flag stands among those of a side, `--base "--revision HEAD"`. */
function comparesRevisions(args: readonly string[]): boolean {
  const [command, subcommand] = args.filter((arg) => !arg.startsWith("-"));
  return command === "bench" && subcommand === "compare" &&
    args.some((arg) => /(^|[\s=])--revision($|[\s=])/.test(arg));
}

/** Where the program will run. */
export interface ProgramPlace {
  /** Its working folder; this process's unless given. */
  readonly cwd?: string | undefined;
  /** Its variables; this process's unless given. */
  readonly getEnv?: (name: "XDG_CACHE_HOME" | "LOCALAPPDATA" | "HOME") => string | undefined;
}

/** Flags for main.ts with these arguments. */
export function programPermissions(args: readonly string[], place: ProgramPlace = {}): readonly string[] {
  if (comparesRevisions(args)) return [...PROGRAM_PERMISSIONS, ...WRITE_ANYWHERE, ...REVISION_PERMISSIONS];
  const network = commandOf(args) === NETWORK_COMMAND ? NETWORK_PERMISSIONS : [];
  return [...PROGRAM_PERMISSIONS, ...writePermissions(args, place), ...network];
}

/** Writing to the outputs that the arguments name, and to the cache. */
function writePermissions(
  args: readonly string[],
  { cwd = Deno.cwd(), getEnv = (name) => Deno.env.get(name) }: ProgramPlace,
): readonly string[] {
  const paths = writtenPaths(args, {
    cache: cacheFolder({ os: Deno.build.os, get: getEnv }),
    isFolder: (path) =>
      path === "." || path === "/" || isFolder(path.startsWith("/") ? path : `${cwd}/${path}`),
  });
  if (paths === null) return WRITE_ANYWHERE;
  return paths.length > 0 ? [`--allow-write=${paths.join(",")}`] : [];
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}

/** Variables of the tests besides; MOR_TEST_SMOLLM2 is the path of a model that the repository does not hold. */
const TEST_VARIABLES = ["PATH", "TMPDIR", "TMP", "TEMP", "DENO_DIR", "MOR_TEST_SMOLLM2"];

/** Flags for the tests, which besides run the program as users do, through Deno or a shell, and a Hub of their own. */
export const TEST_PERMISSIONS: readonly string[] = [
  "--no-prompt",
  "--allow-read",
  "--allow-write",
  `--allow-env=${[...PROGRAM_VARIABLES, ...TEST_VARIABLES].join(",")}`,
  "--allow-sys=systemMemoryInfo",
  "--allow-net=127.0.0.1",
  `--allow-run=${Deno.execPath()},sh,bash`,
];
