/** What each kind of job may do; everything else is denied without a question. */

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
];

/** Flags for main.ts: any file the user names, no network, no other programs. */
export const PROGRAM_PERMISSIONS: readonly string[] = [
  "--no-prompt",
  "--allow-read",
  "--allow-write",
  `--allow-env=${PROGRAM_VARIABLES.join(",")}`,
  // A software adapter's buffers are host memory: how much of it is free is asked before they are made.
  "--allow-sys=systemMemoryInfo",
];

/** Flags for the tests, which besides run the program as users do: through Deno or a shell. */
export const TEST_PERMISSIONS: readonly string[] = [
  "--no-prompt",
  "--allow-read",
  "--allow-write",
  `--allow-env=${[...PROGRAM_VARIABLES, "PATH", "TMPDIR", "TMP", "TEMP", "DENO_DIR"].join(",")}`,
  "--allow-sys=systemMemoryInfo",
  `--allow-run=${Deno.execPath()},sh,bash`,
];
