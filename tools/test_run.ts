/** Runs the tests and closes with one line that says how many passed and failed. */
import type { Packages } from "./packages.ts";
import { TEST_PERMISSIONS } from "./permissions.ts";
import { runProgram } from "./processes.ts";

/** All TypeScript files under a folder, sorted. */
export async function sourceFiles(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = `${folder}/${name}`;
    if (isDirectory) files.push(...await sourceFiles(path));
    else if (name.endsWith(".ts")) files.push(path);
  }
  return files.sort();
}

/** What is run: `args` go to `deno test`, where paths among them replace the folder of all tests. */
export interface TestRun {
  readonly packages: Packages;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

async function isPath(text: string): Promise<boolean> {
  return !text.startsWith("-") && await Deno.stat(text).then(() => true, () => false);
}

/** Reads `ok | 12 passed (3 steps) | 0 failed`, the last line of its kind. */
export function readSummary(output: string): { passed: number; failed: number } | null {
  const lines = [...output.matchAll(/\| (\d+) passed(?: \([^)]*\))? \| (\d+) failed/g)];
  const last = lines.at(-1);
  return last ? { passed: Number(last[1]), failed: Number(last[2]) } : null;
}

/** Files of tests that run at a time unless DENO_JOBS says: each opens the GPU, and most compile kernels on a core. */
function jobs(): Record<string, string> {
  return { DENO_JOBS: Deno.env.get("DENO_JOBS") ?? String(Math.min(4, navigator.hardwareConcurrency)) };
}

/** Runs `deno test`; its exit code is this one's. */
export async function runTests({ packages, args, env }: TestRun): Promise<number> {
  const hasPath = (await Promise.all(args.map(isPath))).includes(true);
  const selected = hasPath ? args : ["tests/", ...args];
  const decoder = new TextDecoder();
  let tail = "";
  const onOutput = (piece: Uint8Array): void => {
    for (let rest = piece; rest.length > 0;) rest = rest.subarray(Deno.stdout.writeSync(rest));
    tail = (tail + decoder.decode(piece, { stream: true })).slice(-4096);
  };
  // Deno sees a pipe, not the terminal behind it.
  const color = Deno.stdout.isTerminal() && !Deno.noColor ? { FORCE_COLOR: "1" } : {};
  const command = [
    "deno",
    "test",
    "--parallel",
    ...packages.flags,
    ...TEST_PERMISSIONS,
    ...selected,
  ] as const;
  const code = await runProgram([...command], { env: { ...env, ...jobs(), ...color }, onOutput });
  // deno-lint-ignore no-control-regex -- colours stand between the words
  const summary = readSummary(tail.replaceAll(/\x1b\[[0-9;]*m/g, ""));
  // Tests that could not even start are a failure too.
  const { passed, failed } = summary ?? { passed: 0, failed: 1 };
  Deno.stdout.writeSync(new TextEncoder().encode(`${passed} passed, ${failed} failed\n`));
  return code === 0 && (failed > 0 || passed === 0) ? 1 : code;
}
