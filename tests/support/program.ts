/** Running the program as users do: as a process of its own, with the permissions that the tasks give it. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { programPermissions } from "../../tools/permissions.ts";

const root = fromFileUrl(new URL("../..", import.meta.url));

/** A few KB of public-domain text; see `fixtures/README.md`. */
export const corpus = join(root, "fixtures", "corpus.txt");

/** How a process ended, and what it wrote. */
export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where and how a process runs. */
export interface ProcessOptions {
  readonly cwd?: string;
  /** Added to the environment of this process; instead of it with `clearEnv`. */
  readonly env?: Readonly<Record<string, string>>;
  readonly clearEnv?: boolean;
  /** What it reads from stdin; nothing unless given. */
  readonly input?: string;
}

/** Flags that let a process find the packages where this one found them: the stand-ins are files of the checkout. */
function packageFlags(): string[] {
  if (import.meta.resolve("@std/assert").startsWith("file:")) {
    return ["--config", join(root, "deno.offline.json")];
  }
  const lock = join(root, ".mor", "deno.lock");
  return ["--config", join(root, "deno.json"), ...(isFile(lock) ? ["--lock", lock] : ["--no-lock"])];
}

function isFile(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** `deno` and its arguments for the program with the given arguments, in the place where it will run. */
export function programCommand(
  args: readonly string[],
  { cwd, env = {}, clearEnv = false }: ProcessOptions = {},
): [string, ...string[]] {
  const getEnv = (name: string): string | undefined =>
    env[name] ?? (clearEnv ? undefined : Deno.env.get(name));
  const flags = ["run", "-q", ...packageFlags(), ...programPermissions(args, { cwd, getEnv })];
  return [Deno.execPath(), ...flags, join(root, "main.ts"), ...args];
}

/** `deno` and its arguments for a script of the tests, which gets no more than the program does. */
export function scriptCommand(script: string, args: readonly string[]): [string, ...string[]] {
  return [Deno.execPath(), "run", "-q", ...packageFlags(), ...programPermissions([]), script, ...args];
}

/**
 * Kernels are those of the tests on the device: chosen without a measurement, which the load of other tests would make
 * wrong, and which would be kept in the user's own cache.
 */
const UNTUNED = { MOR_TUNING: "off" };

/** Starts any program with piped streams. */
export function start(
  [program, ...args]: readonly [string, ...string[]],
  { input, ...options }: ProcessOptions = {},
): Deno.ChildProcess {
  const stdin = input === undefined ? "null" : "piped";
  const env = { ...UNTUNED, ...options.env };
  return new Deno.Command(program, { args, ...options, env, stdin, stdout: "piped", stderr: "piped" })
    .spawn();
}

/** Runs any program to its end. */
export async function run(
  command: readonly [string, ...string[]],
  options: ProcessOptions = {},
): Promise<Outcome> {
  const child = start(command, options);
  if (options.input !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(options.input));
    await writer.close();
  }
  return await outcomeOf(child);
}

/** Waits for a started program. */
export async function outcomeOf(child: Deno.ChildProcess): Promise<Outcome> {
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Runs `mor` with the given arguments. */
export async function mor(args: readonly string[], options: ProcessOptions = {}): Promise<Outcome> {
  return await run(programCommand(args, options), options);
}

/** Runs `mor`, which must succeed. */
export async function morDone(args: readonly string[], options: ProcessOptions = {}): Promise<Outcome> {
  const outcome = await mor(args, options);
  assertEquals(outcome.code, 0, `mor ${args.join(" ")}: ${outcome.stderr}`);
  return outcome;
}

/** Runs `mor --quiet`, which must end with the code and write nothing but one line that has all the parts. */
export async function assertFails(
  args: readonly string[],
  { code, parts, ...options }: ProcessOptions & { code: number; parts: readonly string[] },
): Promise<string> {
  const { stderr, stdout, code: met } = await mor(["--quiet", ...args], options);
  assertEquals({ code: met, stdout }, { code, stdout: "" }, stderr);
  assertEquals(stderr.split("\n").length, 2, `more or less than one line: ${stderr}`);
  for (const part of ["mor: ", ...parts]) assertStringIncludes(stderr, part);
  return stderr;
}

/** Longest time that anything here may take to show. */
const PATIENCE_MS = 30_000;

/**
 * Asks again and again until the answer is yes; an error is a no.
 *
 * @throws Error when it still is no after half a minute.
 */
export async function waitFor(condition: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!await condition().catch(() => false)) {
    if (performance.now() > end) throw new Error(`Waited ${PATIENCE_MS} ms in vain`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Registers a test that gets a folder of its own. */
export function folderTest(name: string, body: (folder: string) => Promise<void>): void {
  // A file that an error leaves open shows.
  Deno.test({
    name,
    sanitizeResources: true,
    async fn(): Promise<void> {
      const folder = await Deno.makeTempDir();
      try {
        await body(folder);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}
