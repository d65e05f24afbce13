/**
 * Runs a task of deno.json: finds the packages, an adapter where the task needs one, and starts the job with the
 * permissions it needs. Has no external imports, because it runs before there are any packages.
 *
 * usage: deno run ... tools/run.ts mor|demo|test|bench|fuzz|ok|compile|setup [arguments]
 */
import { commandOf } from "../cli/written_paths.ts";
import { ensureAdapter, gpuEnvironment } from "./adapter.ts";
import { compileProgram } from "./compile.ts";
import { choosePackages, type PackageRequest, type Packages, updateLocks, WORK_FOLDER } from "./packages.ts";
import { PROGRAM_PERMISSIONS, programPermissions, WRITE_ANYWHERE } from "./permissions.ts";
import { runProgram, say } from "./processes.ts";
import { runTests, sourceFiles } from "./test_run.ts";

const PROGRAM = "main.ts";
const BENCH = "tests/bench/bench.ts";
const FUZZ = "tests/fuzz/fuzz.ts";
/** All that the fuzzer writes; damaged files could lead the program elsewhere. */
const FUZZ_FOLDER = `${WORK_FOLDER}/fuzz`;
const BOOK = `${WORK_FOLDER}/moby_dick.txt`;
/** Sub-commands that compute on the GPU; `doctor` reports by itself that there is none. */
const GPU_COMMANDS = ["train", "generate", "eval", "profile", "bench", "forward", "demo"];
/** Flags with which those compute nothing. */
const IDLE_FLAGS = ["--help", "-h", "--dry-run"];

/** Whether a command line computes on the GPU; `quantize` does to say what it costs, also without writing anything. */
function computes(args: readonly string[]): boolean {
  const command = commandOf(args) ?? "";
  if (command === "quantize") return args.some((arg) => /^--eval(=|$)/.test(arg));
  return GPU_COMMANDS.includes(command) && !args.some((arg) => IDLE_FLAGS.includes(arg));
}

/** Parts of the bench that start processes: of a peer, of the program, or of the binary. */
const BENCH_PROGRAMS: Readonly<Record<string, string>> = {
  "llama-cpp": Deno.execPath(),
  "jax-js": Deno.execPath(),
  kills: Deno.execPath(),
  start: `${Deno.cwd()}/dist/mor`,
};

type Task = (args: readonly string[]) => Promise<number>;

/** Runs steps in order until one fails. */
async function inOrder(...steps: readonly (() => Promise<number>)[]): Promise<number> {
  for (const step of steps) {
    const code = await step();
    if (code !== 0) return code;
  }
  return 0;
}

async function runFile(file: string, args: readonly string[], { request, cwd, permissions }: {
  request: PackageRequest;
  cwd?: string | undefined;
  permissions: readonly string[];
}): Promise<number> {
  const { flags } = await choosePackages(request);
  const absolute = [file, ...flags].map((part) =>
    cwd && !part.startsWith("--") ? `${Deno.cwd()}/${part}` : part
  );
  const [script = file, ...packageFlags] = absolute;
  const command = [
    "deno",
    "run",
    "-q",
    ...packageFlags,
    ...permissions,
    script,
    ...args,
  ] as const;
  return await runProgram([...command], { cwd, env: gpuEnvironment() });
}

/** Paths the user gives are meant from where the user stands, not from the checkout. */
function userFolder(): string | undefined {
  const folder = Deno.env.get("INIT_CWD");
  return folder === Deno.cwd() ? undefined : folder;
}

async function runMor(args: readonly string[]): Promise<number> {
  const cwd = userFolder();
  const permissions = programPermissions(args, { cwd });
  return await inOrder(
    async () => computes(args) ? await ensureAdapter() : 0,
    () => runFile(PROGRAM, args, { request: { entries: [PROGRAM], isChatty: false }, cwd, permissions }),
  );
}

async function writeBook(): Promise<number> {
  if (await Deno.stat(BOOK).then(() => true, () => false)) return 0;
  await Deno.mkdir(WORK_FOLDER, { recursive: true });
  const lock = ["--no-config", "--lock", "tools/demo_text.lock", "--frozen"];
  const permissions = ["--no-prompt", `--allow-read=${WORK_FOLDER}`, `--allow-write=${WORK_FOLDER}`];
  return await runProgram(["deno", "run", "-q", ...lock, ...permissions, "tools/demo_text.ts", BOOK]);
}

async function runDemo(args: readonly string[]): Promise<number> {
  const hasData = args.some((arg) => arg === "--data" || arg.startsWith("--data="));
  const program = ["demo", ...hasData ? [] : ["--data", BOOK], ...args];
  const permissions = programPermissions(program);
  return await inOrder(
    ensureAdapter,
    async () => hasData ? 0 : await writeBook(),
    () => runFile(PROGRAM, program, { request: { entries: [PROGRAM], isChatty: false }, permissions }),
  );
}

async function allEntries(): Promise<string[]> {
  return [PROGRAM, ...await sourceFiles("tests")];
}

async function testWith(packages: Packages, args: readonly string[]): Promise<number> {
  return await inOrder(ensureAdapter, () => runTests({ packages, args, env: gpuEnvironment() }));
}

async function runTest(args: readonly string[]): Promise<number> {
  return await testWith(await choosePackages({ entries: await allEntries(), isChatty: true }), args);
}

async function runOk(args: readonly string[]): Promise<number> {
  const packages = await choosePackages({ entries: await allEntries(), isChatty: true });
  // The stand-ins find their own packages only in their own configuration.
  const offline = packages.isReal ? [] : await sourceFiles("offline");
  const checked = [PROGRAM, ...(await Promise.all(["tests", "tools"].map(sourceFiles))).flat(), ...offline];
  return await inOrder(
    () => runProgram(["deno", "fmt", "--check", "--config", packages.config]),
    () => runProgram(["deno", "lint", "--config", packages.config]),
    () => runProgram(["deno", "check", "-q", ...packages.flags, ...checked]),
    () => testWith(packages, args),
  );
}

async function runBench(args: readonly string[]): Promise<number> {
  const part = args[0] ?? "";
  const program = Object.hasOwn(BENCH_PROGRAMS, part) ? BENCH_PROGRAMS[part] : undefined;
  return await inOrder(
    ensureAdapter,
    async () => args.includes("routers") ? await writeBook() : 0,
    () =>
      runFile(BENCH, args, {
        request: { entries: [BENCH], isChatty: true },
        permissions: [
          ...PROGRAM_PERMISSIONS,
          ...WRITE_ANYWHERE,
          ...program ? [`--allow-run=${program}`] : [],
        ],
      }),
  );
}

/** Nothing beyond the checkout can be read, nothing beyond the folder written; the Hub is one on this machine. */
async function runFuzz(args: readonly string[]): Promise<number> {
  const { flags } = await choosePackages({ entries: [FUZZ, "tests/fuzz/fuzz_worker.ts"], isChatty: true });
  const trials = `${Deno.cwd()}/${FUZZ_FOLDER}/trials`;
  await Deno.mkdir(trials, { recursive: true });
  const permissions = [
    "--no-prompt",
    "--allow-read=.",
    `--allow-write=${FUZZ_FOLDER}`,
    "--allow-env=NO_COLOR",
    "--allow-net=127.0.0.1",
  ];
  return await runProgram(["deno", "run", "-q", ...flags, ...permissions, FUZZ, ...args], {
    env: { ...gpuEnvironment(), TMPDIR: trials },
  });
}

async function runCompile(args: readonly string[]): Promise<number> {
  return await compileProgram(args, await choosePackages({ entries: [PROGRAM], isChatty: true }));
}

async function runSetup(args: readonly string[]): Promise<number> {
  if (args.includes("--update-locks")) return await updateLocks(await allEntries());
  const { isReal } = await choosePackages({ entries: await allEntries(), isChatty: true, retry: true });
  if (isReal) say("packages: all there");
  const code = await ensureAdapter();
  if (code === 0) say("adapter: one answers; `deno task mor doctor` shows it");
  return code;
}

const TASKS: Readonly<Record<string, Task>> = {
  mor: runMor,
  demo: runDemo,
  test: runTest,
  bench: runBench,
  fuzz: runFuzz,
  ok: runOk,
  compile: runCompile,
  setup: runSetup,
};

const [name = "", ...args] = Deno.args;
const task = Object.hasOwn(TASKS, name) ? TASKS[name] : undefined;
if (!task) {
  say(`run.ts: expected one of ${Object.keys(TASKS).join(", ")} as the first argument, met "${name}"`);
}
Deno.exit(task ? await task(args) : 2);
