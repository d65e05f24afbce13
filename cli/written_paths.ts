/**
 * Which files and folders a command may write, known from its arguments alone: so that whoever starts the program can
 * forbid the rest before it runs. Has no imports, because tools/ uses it before there are any packages.
 */

/** The one command that uses the network. */
export const NETWORK_COMMAND = "pull";

/** Flags whose value is a file or folder to write; a test compares them with those of the commands. */
export const OUTPUT_FLAGS: readonly string[] = ["--out", "--html", "--trace", "--gradients"];

/** Where `demo` writes unless told; a demo there is replaced by the next one. */
export const DEMO_FOLDER = ".mor/demo";

/** Folders in the program's cache folder. */
export const CACHE_PARTS = { tuning: "tuning", models: "models" } as const;

/** The command among the program's arguments; those before it can only be flags without a value. */
export function commandOf(args: readonly string[]): string | undefined {
  return args.find((arg) => !arg.startsWith("-"));
}

/** Values of the output flags, as `--out PATH` and `--out=PATH`. */
function outputsOf(args: readonly string[]): string[] {
  const outputs: string[] = [];
  for (const [i, arg] of args.entries()) {
    const equals = arg.indexOf("=");
    const isJoined = equals > 0 && OUTPUT_FLAGS.includes(arg.slice(0, equals));
    if (isJoined) outputs.push(arg.slice(equals + 1));
    else if (OUTPUT_FLAGS.includes(arg) && args[i + 1] !== undefined) outputs.push(args[i + 1]!);
  }
  return outputs;
}

/**
 * Files and folders that a command with these arguments may write, with what they are called until they are whole;
 * null where that cannot be known from the arguments, or not be told to Deno: a settings file may name the folder, and
 * a path with a comma is two paths to Deno.
 *
 * @param cache The program's folder in the user's cache, null if there is none.
 * @param isFolder Whether a path is a folder that is there; "." and "/" always are.
 */
export function writtenPaths(
  args: readonly string[],
  { cache, isFolder }: { cache: string | null; isFolder: (path: string) => boolean },
): readonly string[] | null {
  const command = commandOf(args);
  if (command === "train" && args.some((arg) => arg === "--config" || arg.startsWith("--config="))) {
    return null;
  }
  const outputs = outputsOf(args).map((path) => path.replace(/\/+$/, ""));
  if (command === "demo") outputs.push(DEMO_FOLDER);
  if (!outputs.every(isPlain)) return null;
  if (command === "tokenizer") outputs.push(...outputs.filter(isJson).map(configBeside));
  const paths = outputs.flatMap((path) => outputPaths(path, { isFolder }));
  if (cache === null) return paths;
  if (cache.includes(",")) return null;
  if (command === NETWORK_COMMAND) paths.push(`${cache}/${CACHE_PARTS.models}`);
  return [...paths, `${cache}/${CACHE_PARTS.tuning}`];
}

/** Whether a path can be told to Deno, and its siblings' names follow from its own. */
function isPlain(path: string): boolean {
  return !/[,\\]|^[A-Za-z]:/.test(path) && !/(^|\/)\.{0,2}$/.test(path);
}

/** A tokenizer may be named by its file; its configuration is written beside it. */
function isJson(path: string): boolean {
  return path.endsWith(".json");
}

function configBeside(path: string): string {
  return `${path.slice(0, path.lastIndexOf("/") + 1)}tokenizer_config.json`;
}

/** An output, its names in the making (see `replaceFile` and `makeModelFolder`), and what has to be made above it. */
function outputPaths(path: string, { isFolder }: { isFolder: (path: string) => boolean }): string[] {
  const name = path.lastIndexOf("/") + 1;
  const unfinished = [`${path}.unfinished`, `${path.slice(0, name)}.${path.slice(name)}.unfinished`];
  let missing: string | null = null;
  for (let folder = folderOf(path); !isFolder(folder); folder = folderOf(folder)) missing = folder;
  return [path, ...unfinished, ...missing === null ? [] : [missing]];
}

/** `a/b` of `a/b/c`, "." of a name alone. */
function folderOf(path: string): string {
  const slash = path.replace(/\/+$/, "").lastIndexOf("/");
  return slash < 0 ? "." : path.slice(0, slash).replace(/\/+$/, "") || "/";
}
