/**
 * Feeds every parser of input that others may have written with damaged and hostile files, one kind after the other;
 * stops at the first that is neither read as it says nor refused in one line, soon and in little memory.
 *
 * usage: deno task fuzz --minutes N [--seed S] [--only KIND]
 */
import { parseArgs } from "node:util";
import { dirname, join } from "@std/path";
import type { FuzzMessage, FuzzTask, FuzzTrial } from "./fuzz_worker.ts";
import { FUZZ_KINDS } from "./kinds.ts";

/** Where failing inputs are left; everything that is written lies in it. */
const FOLDER = ".mor/fuzz";

/** Time after which an input hangs. */
const PATIENCE_MS = 20_000;

/** Memory after which the system is not to be troubled further. */
const MAX_BYTES = 3 * 2 ** 30;

const USAGE = "usage: deno task fuzz --minutes N [--seed S] [--only KIND]";

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(line + "\n"));
}

function fail(line: string, code: number): never {
  Deno.stderr.writeSync(new TextEncoder().encode(line + "\n"));
  Deno.exit(code);
}

/** Reads the arguments; ends the program for those that cannot be meant. */
function readTask(): FuzzTask {
  let values: { minutes?: string; seed?: string; only?: string };
  try {
    const string = { type: "string" } as const;
    ({ values } = parseArgs({ args: Deno.args, options: { minutes: string, seed: string, only: string } }));
  } catch (error) {
    fail(`fuzz: ${(error as Error).message.split("\n")[0]}; ${USAGE}`, 2);
  }
  const { minutes = "", seed = String(Math.floor(Math.random() * 1e9)), only } = values;
  if (!(Number(minutes) > 0)) fail(`fuzz: --minutes is "${minutes}", wanted a number above 0; ${USAGE}`, 2);
  if (!/^\d{1,10}$/.test(seed)) fail(`fuzz: --seed is "${seed}", wanted a whole number; ${USAGE}`, 2);
  const names = Object.keys(FUZZ_KINDS);
  if (only !== undefined && !names.includes(only)) {
    fail(`fuzz: --only is "${only}", wanted one of ${names.join(", ")}`, 2);
  }
  const kinds = only === undefined ? names : [only];
  return {
    kinds,
    ms: Number(minutes) * 60_000 / kinds.length,
    firstSeed: Number(seed),
    root: join(FOLDER, "trials"),
  };
}

/** Keeps the input as a file, says how to make it again, and ends the program. */
function report({ kind, seed, input: { name, bytes } }: FuzzTrial, problem: string): never {
  const path = join(FOLDER, kind, `seed_${seed}`, name);
  Deno.mkdirSync(dirname(path), { recursive: true });
  Deno.writeFileSync(path, bytes);
  fail(
    `FINDING in ${kind}, seed ${seed}: ${problem}\n` +
      `The input is ${path}; its folder seed_${seed}, with a name that says what it does, belongs into fixtures/fuzz/${kind}/\n` +
      `Again: deno task fuzz --minutes 1 --only ${kind} --seed ${seed}`,
    1,
  );
}

const task = readTask();
say(`fuzz: ${task.kinds.length} kinds, ${(task.ms / 1000).toFixed(0)} s each, from seed ${task.firstSeed}`);
Deno.mkdirSync(task.root, { recursive: true });
const worker = new Worker(import.meta.resolve("./fuzz_worker.ts"), { type: "module" });
let trial: FuzzTrial | null = null;
let since = performance.now();
worker.onmessage = ({ data }: MessageEvent<FuzzMessage>): void => {
  since = performance.now();
  if (data.about === "trial") ({ trial } = data);
  else trial = null;
  if (data.about === "kind") say(data.line);
  if (data.about === "finding") report(data.trial, data.problem);
  if (data.about === "end") {
    Deno.removeSync(task.root, { recursive: true });
    say("fuzz: nothing found");
    Deno.exit(0);
  }
};
worker.onerror = (event): void => fail(`fuzz: the worker ended: ${event.message}`, 1);
worker.postMessage(task);
// This thread is free even when the other hangs, and ends both.
setInterval(() => {
  if (!trial) return;
  const { rss } = Deno.memoryUsage();
  if (rss > MAX_BYTES) report(trial, `${rss} bytes of memory`);
  if (performance.now() - since > PATIENCE_MS) report(trial, `it hangs for ${PATIENCE_MS / 1000} s`);
}, 50);
