/** Who reads a page and types what it says: a shell in a folder of its own, with the files that the page speaks of. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { type HubServer, serveHub } from "../support/hub_server.ts";
import { corpus, type Outcome, programCommand, run } from "../support/program.ts";
import type { Block } from "./pages.ts";

/** Numbers and names that only make a page's commands long, and what takes their place here. All else stays. */
const SHORTER: readonly (readonly [said: RegExp, run: string])[] = [
  [/--steps 1000\b/g, "--steps 3 --batch-size 2 --sequence-length 64"],
  [/"steps": 1000\b/g, '"steps": 3, "batch_size": 2, "sequence_length": 64'],
  [/--stop-after 500\b/g, "--stop-after 2"],
  [/--vocab-size 4096\b/g, "--vocab-size 300"],
  [/--model 135m-mor3\b/g, "--model tiny-mor3"],
  [/-p 512 -n 128\b/g, "-p 32 -n 4"],
  [/-p 128\b/g, "-p 16"],
  [/\bprofile (?=[a-z])/g, "profile --repeats 1 "],
  [/\bbench compare (?=[a-z])/g, "bench compare --pairs 2 "],
  [
    /\bbench throughput\b/g,
    "bench throughput tiny-vanilla tiny-mor3 --windows 1 --seconds 0.1 --mean-length 16 --batch-size 8",
  ],
];

/**
 * How a shell starts the program for a command, up to its arguments; folders may have blanks in their names. It may
 * write anywhere: what it writes follows from arguments that are not known yet.
 */
function startOf(command: readonly string[]): string {
  const words = programCommand(command);
  return words.slice(0, words.length - command.length)
    .map((word) => word.startsWith("--allow-write") ? "--allow-write" : word)
    .map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
}

/**
 * Commands as a newcomer has them. Two are printed instead of run: `deno task
 * test` is this suite, and `deno task compile` has a test of its own, so that `mor` is the checkout's program here.
 */
const COMMANDS = `
deno() {
  if [ "$1" != task ]; then echo "no way to run here: deno $*" >&2; return 90; fi
  shift
  if [ "$1" = -q ]; then shift; fi
  case "$1" in
    mor) shift; mor "$@" ;;
    demo) mor demo --data book.txt --out demo-model --steps 3 ;;
    compile) mkdir -p dist && echo "dist/mor is made and run by tests/cli/binary_test.ts" | tee dist/mor >&2 ;;
    test) echo "deno task test is the suite that runs this page: not run within itself" >&2 ;;
    *) echo "no way to run here: deno task $*" >&2; return 90 ;;
  esac
}
npx() {
  if [ "$1 $2" != "-y deno@2.9.6" ]; then echo "no way to run here: npx $*" >&2; return 90; fi
  shift 2
  deno "$@"
}
mor() {
  if [ "$1" = pull ]; then
    XDG_CACHE_HOME="$HOME/cache" ${startOf(["pull"])} "$@" && status=0 || status=$?
  else
    # The driver's cache of compiled kernels is in the user's own home.
    HOME="$OWN_HOME" ${startOf([])} "$@" && status=0 || status=$?
  fi
  printf '%s %s\\n' "$status" "$*" >> "$HOME/history"
  return "$status"
}
`;

/** What a reader has before the first page: a text, models of other people, a Hub to pull one from. */
export interface Library extends AsyncDisposable {
  readonly folder: string;
  readonly hub: HubServer;
  readonly denoFolder: string;
}

/** Of the chat model's tokenizer. */
const CHAT = {
  eos_token: "<|endoftext|>",
  chat_template: "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}",
};

/** Makes them, small: a chat model as a GGUF file, a base model as a Hugging Face folder, a model trained here. */
export async function openLibrary(): Promise<Library> {
  const folder = await Deno.makeTempDir();
  const { stdout } = await run([Deno.execPath(), "info", "--json"]);
  const book = (await Deno.readTextFile(corpus)).repeat(2);
  await Deno.writeTextFile(join(folder, "book.txt"), book);
  await Deno.writeTextFile(join(folder, "held-out.txt"), book.slice(-1000));
  const library = { folder, denoFolder: JSON.parse(stdout).denoDir };
  const files: Record<string, Uint8Array<ArrayBuffer>> = {};
  const hub = serveHub("HuggingFaceTB/SmolLM2-135M", { files });
  const made = { ...library, hub, [Symbol.asyncDispose]: () => hub[Symbol.asyncDispose]() };
  const train = "mor train --data book.txt --steps 1 --eval-every 0 --batch-size 1 --sequence-length 32";
  const { code, stderr } = await runShell(made, {
    folder,
    script: `
      ${train} --model tiny --out my-model
      ${train} --model tiny-vanilla --out base
      mor export base --format hf --out SmolLM2-135M
      mor tokenizer train --data book.txt --vocab-size 300 --out words
      printf '%s' '${JSON.stringify(CHAT)}' > words/tokenizer_config.json
      ${train} --model tiny-vanilla --tokenizer words --out chat
      mor export chat --format gguf --out SmolLM2-135M-Instruct.Q4_1.gguf
      rm -r base words chat
    `,
  });
  assertEquals(code, 0, stderr);
  for (const { name } of Deno.readDirSync(join(folder, "SmolLM2-135M"))) {
    files[name] = Deno.readFileSync(join(folder, "SmolLM2-135M", name));
  }
  return made;
}

async function runShell(
  { hub, denoFolder }: Library,
  { folder, script }: { folder: string; script: string },
): Promise<Outcome> {
  const home = join(folder, "home");
  await Deno.mkdir(join(home, ".config", "fish"), { recursive: true });
  const env = {
    DENO_DIR: denoFolder,
    HOME: home,
    OWN_HOME: Deno.env.get("HOME") ?? home,
    HF_ENDPOINT: hub.endpoint,
  };
  return await run(["sh", "-eu", "-c", COMMANDS + script], { cwd: folder, env });
}

/** A page that was read to its end. */
export interface Reading {
  readonly folder: string;
  /** Commands of `mor`, with their exit codes before them. */
  readonly history: readonly string[];
  /** What the last shell of each block wrote. */
  readonly outcomes: readonly Outcome[];
  readonly sh: (script: string) => Promise<Outcome>;
}

/** What the reader of a page does not have yet: its commands make it. */
const MISSING: Readonly<Record<string, string>> = {
  "README.md": "my-model",
  "model/TRAINING.md": "my-model",
  "model/exchange/EXCHANGE.md": "SmolLM2-135M",
};

/**
 * Types all `sh` blocks of a page in order, each in a shell of its own, in a copy of the library's folder.
 *
 * @throws AssertionError for a command that fails.
 */
export async function readPage(library: Library, page: string, blocks: readonly Block[]): Promise<Reading> {
  const folder = await Deno.makeTempDir();
  await copyFolder(library.folder, folder);
  const missing = MISSING[page];
  if (missing !== undefined) await Deno.remove(join(folder, missing), { recursive: true });
  const sh = (script: string): Promise<Outcome> => runShell(library, { folder, script });
  const outcomes: Outcome[] = [];
  for (const { language, text, line } of blocks) {
    if (language !== "sh") continue;
    const outcome = await sh(SHORTER.reduce((script, [said, run]) => script.replaceAll(said, run), text));
    assertEquals(outcome.code, 0, `the block of line ${line} of ${page} failed:\n${outcome.stderr}`);
    outcomes.push(outcome);
  }
  const history = (await Deno.readTextFile(join(folder, "home", "history")).catch(() => "")).trim().split(
    "\n",
  );
  // In a pipe or in $(...) a shell does not care how a command ended.
  assertEquals(history.filter((command) => !command.startsWith("0 ")), [], page);
  return { folder, history, outcomes, sh };
}

async function copyFolder(from: string, to: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (name === "home") continue;
    const [source, target] = [join(from, name), join(to, name)];
    if (!isDirectory) await Deno.copyFile(source, target);
    else {
      await Deno.mkdir(target, { recursive: true });
      await copyFolder(source, target);
    }
  }
}
