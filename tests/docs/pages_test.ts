/**
 * The documentation, read and typed: every `sh` block of every page runs, in order, as a newcomer with a small text would
 * type it. What stands in for their machine, and which numbers are smaller here, is in reader.ts.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname, join } from "@std/path";
import { programCommand, run } from "../support/program.ts";
import { type Block, findPages, readAnchors, readBlocks, readLinks, ROOT } from "./pages.ts";
import { type Library, openLibrary, type Reading, readPage } from "./reader.ts";

/** Languages of blocks: those that are run, and those that only show something. */
const [RUN, SHOWN] = [["sh", "ts"], ["", "json"]];

const read = (page: string): string => Deno.readTextFileSync(join(ROOT, page));
const pages = findPages();
const blocksOf = new Map<string, Block[]>(pages.map((page) => [page, readBlocks(read(page))]));
const isRun = ({ language }: Block): boolean => RUN.includes(language);

function lines({ folder }: Reading, path: string): string[] {
  return Deno.readTextFileSync(join(folder, path)).trimEnd().split("\n");
}

// deno-lint-ignore no-explicit-any -- each check names the fields that its page promises
function json(reading: Reading, path: string): any {
  return JSON.parse(lines(reading, path).join("\n"));
}

function size({ folder }: Reading, path: string): number {
  return Deno.statSync(join(folder, path)).size;
}

/** What each page with blocks promises, where that is cheap to see; the commands have ended well. */
const PROMISES: Readonly<Record<string, (reading: Reading) => Promise<void> | void>> = {
  async "README.md"(reading): Promise<void> {
    const [start] = reading.outcomes;
    assertMatch(start!.stdout, /Loss in bits per byte over 3 steps/);
    assertStringIncludes(start!.stderr, "not run within itself");
    assertEquals(lines(reading, "my-model/metrics.jsonl").map((line) => JSON.parse(line).step).at(-1), 3);
    const passages = Deno.readTextFileSync(join(reading.folder, "passages.txt"));
    for (const beginning of lines(reading, "beginnings.txt")) assertStringIncludes(passages, beginning);
    assertEquals(json(reading, "passage.json").tokens.length, 128);
    assert(size(reading, "my-model-q8/model.safetensors") < size(reading, "my-model/model.safetensors") / 2);
    assertMatch(lines(reading, "page.html").join("\n"), /<svg/);
    assert(json(reading, "t.json").traceEvents.length > 0);
    assert(size(reading, "home/.local/bin/mor") > 0);
    assertMatch(reading.outcomes.at(-1)!.stdout, /^mor +\d.*\ncommit /);
    for (const name of [".bashrc", ".zshrc", ".config/fish/config.fish"]) {
      assertMatch(lines(reading, join("home", name))[0]!, /mor completions/);
    }
    const script = lines(reading, "home/.bashrc")[0]!;
    const offered = await reading.sh(`mor completions bash > mor.bash
      bash -c 'mor() { cat mor.bash; }; ${script}; COMP_WORDS=(mor tr); COMP_CWORD=1; _mor; echo "$COMPREPLY"'`);
    assertEquals(offered.stdout, "train\n", offered.stderr);
  },
  "model/TRAINING.md"(reading): void {
    assertEquals(lines(reading, "my-run/metrics.jsonl").map((line) => JSON.parse(line).step), [1, 2, 3]);
    const [line] = lines(reading, "my-model/metrics.jsonl").map((line) => JSON.parse(line));
    assertEquals(line.depth_fractions.length, 4);
    assertEquals(json(reading, "my-tok/config.json").router.kind, "token_choice");
    assertEquals(json(reading, "my-words/config.json").vocab_size, 300);
    assert(json(reading, "eval.json"));
    const [dry, small] = reading.outcomes[3]!.stdout.split("parameters").slice(1);
    assert(bytesOfRun(dry!) > bytesOfRun(small!));
  },
  "model/ROUTERS.md"(reading): void {
    assertEquals(json(reading, "my-alpha/config.json").router.alpha, 0.2);
    assertEquals(json(reading, "my-rec/config.json").router, null);
  },
  "model/batching/PROMPTS.md"(reading): void {
    const results = lines(reading, "results.jsonl").map((line) => JSON.parse(line));
    assertEquals(results.map(({ index }) => index).sort(), [0, 1]);
    assertEquals(results.find(({ index }) => index === 1).title, "second");
    assertEquals(lines(reading, "pipe.jsonl").map((line) => JSON.parse(line).index), [0, 1]);
    assertEquals(lines(reading, "passages.jsonl").length, 2);
  },
  "model/files/QUANTIZE.md"(reading): void {
    const [some, all] = ["my-model-q4", "my-model-q4-all"].map((name) =>
      size(reading, `${name}/model.safetensors`)
    );
    assert(some! > all!);
    assert(json(reading, "cost.json"));
  },
  "model/exchange/EXCHANGE.md"(reading): void {
    for (const path of ["SmolLM2-135M", "my-vanilla-hf", "my-vanilla-again", "my-model-again"]) {
      assert(size(reading, `${path}/model.safetensors`) > 0);
    }
    assertStringIncludes(reading.outcomes.at(-1)!.stdout, "deepspeed");
  },
  "cli/PROFILE.md"(reading): void {
    assert(json(reading, "profile.json"));
    for (
      const word of ["ceilings", "pp32", "tg4", "train 4x256", "of ceiling", "outside of kernels", "depth"]
    ) {
      assertStringIncludes(reading.outcomes[0]!.stdout, word);
    }
  },
};

/** "GPU memory   1.2 MiB (1234 bytes)" of a dry run. */
function bytesOfRun(text: string): number {
  return Number(/^GPU memory.*\((\d+) bytes\)$/m.exec(text)?.[1]);
}

Deno.test("every block has a language that is run or only shown, and every page with blocks to run a promise", () => {
  for (const [page, blocks] of blocksOf) {
    for (const { language, line } of blocks) {
      assert([...RUN, ...SHOWN].includes(language), `line ${line} of ${page}: nothing runs "${language}"`);
    }
  }
  const withBlocks = pages.filter((page) => blocksOf.get(page)!.some(isRun));
  assertEquals(withBlocks.sort(), Object.keys(PROMISES).sort());
});

Deno.test("every link of a page leads to a file and a heading that are there", () => {
  for (const page of pages) {
    for (const link of readLinks(read(page)).filter((target) => !target.includes("://"))) {
      const [path = "", anchor] = link.split("#");
      const target = path === "" ? page : join(dirname(page), path);
      const { isFile } = Deno.statSync(join(ROOT, target));
      if (anchor === undefined) continue;
      assert(isFile && readAnchors(read(target)).includes(anchor), `${page} links to ${link}`);
    }
  }
});

Deno.test("README.md is one page, and its first block is the two commands of the quick start", () => {
  assert(read("README.md").split("\n").length <= 250);
  const commands = blocksOf.get("README.md")![1]!.text.split("\n").map((line) => line.split("#")[0]!.trim());
  assertEquals(commands, ["npx -y deno@2.9.6 task demo", "npx -y deno@2.9.6 task test", ""]);
});

let library: Library | undefined;
const readings = new Map<string, PromiseWithResolvers<Reading>>();

Deno.test.beforeAll(async () => {
  library = await openLibrary();
  const waiting = Object.keys(PROMISES);
  for (const page of waiting) readings.set(page, Promise.withResolvers());
  async function readOn(): Promise<void> {
    for (let page = waiting.shift(); page !== undefined; page = waiting.shift()) {
      const { promise, resolve } = readings.get(page)!;
      resolve(readPage(library!, page, blocksOf.get(page)!));
      await promise.catch(() => {});
    }
  }
  // Two at a time: a small model leaves most of a machine idle.
  void Promise.all([readOn(), readOn()]);
});

Deno.test.afterAll(async () => {
  const all = await Promise.allSettled(Array.from(readings.values(), ({ promise }) => promise));
  for (const reading of all) {
    if (reading.status === "fulfilled") await Deno.remove(reading.value.folder, { recursive: true });
  }
  await library?.[Symbol.asyncDispose]();
  if (library) await Deno.remove(library.folder, { recursive: true });
});

for (const [page, check] of Object.entries(PROMISES)) {
  // The other pages are read meanwhile.
  Deno.test({
    name: `${page} says what works`,
    sanitizeOps: false,
    sanitizeResources: false,
    async fn(): Promise<void> {
      const reading = await readings.get(page)!.promise;
      await check(reading);
      for (const { text } of blocksOf.get(page)!.filter(({ language }) => language === "ts")) {
        await runProgramBlock(reading, text);
      }
    },
  });
}

/** Type-checks and runs a program that stands in a page, as if it lay in the checkout. */
async function runProgramBlock({ folder }: Reading, text: string): Promise<void> {
  const path = join(folder, "page.ts");
  await Deno.writeTextFile(path, text.replaceAll('from "./', `from "file://${ROOT}`));
  const command = programCommand([]).with(-1, path) as [string, ...string[]];
  const { code, stdout, stderr } = await run([command[0], "run", "--check", ...command.slice(2)], {
    cwd: folder,
  });
  assertEquals(code, 0, stderr);
  assert(stdout.trim() !== "", "the program prints nothing");
}
