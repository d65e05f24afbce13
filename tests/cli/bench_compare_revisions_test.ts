/** `mor bench compare --revision` in a repository of its own: a copy of this checkout after a commit that is broken. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import {
  PROGRAM_PERMISSIONS,
  programPermissions,
  REVISION_PERMISSIONS,
  WRITE_ANYWHERE,
} from "../../tools/permissions.ts";
import { copyCheckout } from "../support/checkout.ts";
import { type Outcome, outcomeOf, run, start, waitFor } from "../support/program.ts";

const BROKEN = 'throw new Error("broken on purpose");\n';
/** Fails in `mor profile` alone, which only processes of a comparison run. */
const HALF_BROKEN =
  'if (Deno.args.includes("profile")) throw new Error(`edited on purpose: ${Deno.args.join(" ")}`);\n';

let folder: string;
let program: string;

/** Runs git without the settings and variables of whoever runs the tests. */
async function git(...args: readonly string[]): Promise<string> {
  const identity = ["-c", "user.name=A Tester", "-c", "user.email=tester@example.com"];
  const { code, stdout, stderr } = await run(["sh", "-c", 'exec git "$@"', "sh", ...identity, ...args], {
    cwd: folder,
    env: { PATH: Deno.env.get("PATH") ?? "", HOME: folder },
    clearEnv: true,
  });
  assertEquals(code, 0, `git ${args.join(" ")}: ${stderr}`);
  return stdout;
}

async function commit(message: string): Promise<void> {
  await git("add", "--all");
  await git("commit", "--quiet", "--message", message);
}

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir();
  await copyCheckout(folder);
  await Deno.writeTextFile(join(folder, ".gitignore"), ".mor/\ndeno.offline.json\n");
  program = await Deno.readTextFile(join(folder, "main.ts"));
  await git("init", "--quiet");
  await Deno.writeTextFile(join(folder, "main.ts"), BROKEN);
  await commit("broken");
  await Deno.writeTextFile(join(folder, "main.ts"), program);
  await commit("whole");
});

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

const SMALL = ["--pairs", "1", "-p", "4", "-n", "2"];

function commandOf(args: readonly string[]): [string, ...string[]] {
  return [Deno.execPath(), "task", "-q", "mor", "bench", "compare", "tiny", ...args];
}

async function compare(...args: readonly string[]): Promise<Outcome> {
  return await run(commandOf(args), { cwd: folder });
}

/** Folders that set-up does not make. */
async function leftBehind(): Promise<string[]> {
  const names = await Array.fromAsync(Deno.readDir(join(folder, ".mor")));
  return names.filter(({ isDirectory }) => isDirectory).map(({ name }) => name);
}

/** Checks that no checkout is left, nor git's note of one. */
async function assertClean(): Promise<void> {
  assertEquals(await leftBehind(), []);
  assertEquals((await git("worktree", "list")).trim().split("\n").length, 1);
  assertEquals(await git("status", "--porcelain", "--", ":!main.ts"), "");
}

Deno.test("bench compare measures a revision and the program as it is by processes alike", async () => {
  const sides = ["--base", "--revision HEAD", "--seed", "3"];
  const { code, stdout, stderr } = await compare(...sides, ...SMALL, "--json");
  assertEquals(code, 0, stderr);
  for (const part of ["adapter: ", "seed: 3\n", "2/2 change of pair 1"]) assertStringIncludes(stderr, part);
  const { by_process: byProcess, pairs, base, change, prefill, decode } = JSON.parse(stdout);
  assertEquals([byProcess, pairs], [true, 1]);
  assertEquals([base.revision, base.commit], ["HEAD", (await git("rev-parse", "HEAD")).trim()]);
  assertEquals([change.revision, change.commit], [null, null]);
  assertEquals([prefill.base.tokens, prefill.change.tokens, decode.base.tokens], [4, 4, 1]);
  for (const { pairs: [{ base_milliseconds: base, change_milliseconds: change }] } of [prefill, decode]) {
    assert(base > 0 && change > 0);
  }
  await assertClean();
});

Deno.test("bench compare runs the program of the revision, and of the checkout without one", async () => {
  const broken = await compare("--base", "--revision HEAD~1", ...SMALL, "-q");
  assertEquals([broken.code, broken.stdout], [1, ""]);
  assertMatch(broken.stderr, /^mor: Cannot measure --base "--revision HEAD~1": .*broken on purpose\n$/);
  await Deno.writeTextFile(join(folder, "main.ts"), HALF_BROKEN + program);
  const step = ["--train", "--batch-size", "1", "--sequence-length", "8"];
  const changes = ["--base", "--revision HEAD", "--change", "--activations f16 --recompute"];
  const edited = await compare(...changes, ...step, ...SMALL, "-q");
  await Deno.writeTextFile(join(folder, "main.ts"), program);
  assertEquals([edited.code, edited.stdout], [1, ""]);
  assertMatch(
    edited.stderr,
    /^mor: Cannot measure --change "--activations f16 --recompute": .*edited on purpose: /,
  );
  // A process gets all of its side's flags.
  for (const flag of ["--batch-size 1", "--activations f16", "--train --recompute\n"]) {
    assertStringIncludes(edited.stderr, flag);
  }
  await assertClean();
});

Deno.test("bench compare refuses a revision that git does not know", async () => {
  for (
    const [name, revision] of [["--base", "no-such-branch"], ["--change", "HEAD~9"], ["--base", "--all"]]
  ) {
    const { code, stdout, stderr } = await compare(name!, `--revision ${revision}`, "-q");
    assertEquals([code, stdout], [2, ""], stderr);
    const start = `mor: With ${name} "--revision ${revision}": git knows no revision "${revision}"`;
    assert(stderr.startsWith(start), stderr);
    assertEquals(stderr.split("\n").length, 2, stderr);
  }
  await assertClean();
});

Deno.test("bench compare removes its checkouts when it is interrupted", async () => {
  const args = ["--base", "--revision HEAD", "--change", "--revision HEAD", "--pairs", "1000", "-q"];
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    const child = start(commandOf(args), { cwd: folder });
    const ended = outcomeOf(child);
    await waitFor(async () => (await leftBehind()).length === 2);
    child.kill(signal);
    const { code, stdout, stderr } = await ended;
    assertEquals([code, stdout, stderr], [130, "", "mor: interrupted; nothing is left behind\n"]);
    await assertClean();
  }
});

/** Ids and arguments of the processes below one, outermost first. */
async function processesBelow(pid: number): Promise<{ pid: number; args: string }[]> {
  const { stdout } = await run(["sh", "-c", "ps -eo pid=,ppid=,args="]);
  const all = stdout.trim().split("\n").map((line) => {
    const [, pid, parent, args] = /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line)!;
    return { pid: Number(pid), parent: Number(parent), args: args! };
  });
  const below = (parents: readonly number[]): typeof all => {
    const children = all.filter(({ parent }) => parents.includes(parent));
    return children.length === 0 ? [] : [...children, ...below(children.map(({ pid }) => pid))];
  };
  return below([pid]);
}

for (const which of ["outermost", "innermost"] as const) {
  Deno.test(`bench compare ends in one line when the ${which} process of a measurement is killed`, async () => {
    const sides = ["--base", "--revision HEAD", "--pairs", "1", "-p", "64", "-n", "16", "-q"];
    const child = start(commandOf(sides), { cwd: folder });
    const ended = outcomeOf(child);
    let helpers: { pid: number; args: string }[] = [];
    await waitFor(async () => {
      helpers = (await processesBelow(child.pid)).filter(({ args }) => / profile tiny /.test(args));
      return helpers.some(({ args }) => /main\.ts profile tiny /.test(args));
    });
    await run(["sh", "-c", `kill -9 ${(which === "outermost" ? helpers[0] : helpers.at(-1))!.pid}`]);
    const { code, stdout, stderr } = await ended;
    assertEquals([code, stdout], [1, ""], stderr);
    assertEquals(stderr, 'mor: Cannot measure --base "--revision HEAD": its process was ended by signal 9\n');
    await assertClean();
    const ids = helpers.map(({ pid }) => pid).join(",");
    await waitFor(async () => (await run(["sh", "-c", `ps -o pid= -p ${ids}`])).stdout.trim() === "");
  });
}

Deno.test("bench compare ends in one line when a measurement's result stops half-way", async () => {
  const half =
    'if (Deno.args.includes("profile")) { console.log(\'{"adapter": "x", "pre\'); Deno.exit(0); }\n';
  await Deno.writeTextFile(join(folder, "main.ts"), half + program);
  const { code, stdout, stderr } = await compare("--base", "--revision HEAD", ...SMALL, "-q");
  await Deno.writeTextFile(join(folder, "main.ts"), program);
  assertEquals([code, stdout], [1, ""]);
  assertMatch(stderr, /^mor: Cannot measure --change "": its result is no JSON, but begins with ".*"\n$/);
  await assertClean();
});

Deno.test("only bench compare with a revision may start other programs", () => {
  const revision = ["--base", "--revision HEAD"];
  for (
    const args of [
      ["bench", "compare", "tiny", ...revision],
      ["-q", "bench", "--verbose", "compare", "tiny", "--change=--dtype f32 --revision v1"],
      ["bench", "compare", "tiny", "--change", "--dtype f32 --revision=v1"],
    ]
  ) {
    assertEquals(programPermissions(args), [
      ...PROGRAM_PERMISSIONS,
      ...WRITE_ANYWHERE,
      ...REVISION_PERMISSIONS,
    ]);
  }
  for (
    const args of [
      ["bench", "compare", "tiny"],
      ["bench", "compare", "tiny", "--base", "--revisions 3"],
      ["bench", "throughput", "compare", ...revision],
      ["compare", "bench", ...revision],
      ["profile", "tiny", ...revision],
      ["generate", "bench", "compare", "-p", "--revision HEAD"],
    ]
  ) {
    const flags = programPermissions(args).join(" ");
    assert(!/allow-run|allow-write( |$)/.test(flags), flags);
  }
});
