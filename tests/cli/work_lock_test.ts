/** Two runs on one folder, or on one file of results: the second ends at once and changes nothing. */
import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { RunFileError } from "../../cli/errors.ts";
import { openTerminal } from "../../cli/terminal.ts";
import { WorkLock } from "../../cli/work_lock.ts";
import {
  assertFails,
  folderTest,
  morDone,
  outcomeOf,
  programCommand,
  start,
  waitFor,
} from "../support/program.ts";
import { savedStep, smallRun } from "../support/small_run.ts";

const words = { verb: "train in", doing: "at work there" };
const terminal = openTerminal({ quiet: true });

async function namesIn(folder: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(folder), ({ name }) => name)).sort();
}

folderTest("a folder made for a lock goes again unless something was put into it", async (folder) => {
  const run = join(folder, "new", "run");
  {
    using lock = new WorkLock(run, { words, terminal });
    await lock.takeIfThere();
    assertEquals(await namesIn(folder), []);
    assertEquals([await lock.takeFolder(), await lock.takeFolder()], [true, false]);
    assertEquals(await namesIn(join(folder, "new")), ["run"]);
    using other = new WorkLock(run, { words, terminal });
    await assertRejects(() => other.takeIfThere(), RunFileError, `Cannot train in ${run}: another run is`);
  }
  assertEquals(await namesIn(folder), []);
  {
    using lock = new WorkLock(run, { words, terminal });
    await lock.takeFolder();
    await Deno.writeTextFile(join(run, "x"), "");
  }
  assertEquals(await namesIn(run), ["x"]);
  using again = new WorkLock(run, { words, terminal });
  await again.takeIfThere();
  assertEquals(await again.takeFolder(), false);
});

folderTest(
  "a file that was replaced while it was opened is not taken for the one that is there",
  async (folder) => {
    const path = join(folder, "results.jsonl");
    await Deno.writeTextFile(path, "old");
    const { tryLock } = Deno.FsFile.prototype;
    let tries = 0;
    Deno.FsFile.prototype.tryLock = async function (exclusive): Promise<boolean> {
      if (tries++ === 0) {
        await Deno.writeTextFile(`${path}.new`, "new");
        await Deno.rename(`${path}.new`, path);
      }
      return await tryLock.call(this, exclusive);
    };
    try {
      using lock = new WorkLock(path, { words, terminal });
      await lock.takeIfThere();
      assertEquals(tries, 2);
      using other = new WorkLock(path, { words, terminal });
      await assertRejects(() => other.takeFile(), RunFileError);
    } finally {
      Deno.FsFile.prototype.tryLock = tryLock;
    }
  },
);

folderTest("where there are no locks a warning says so once, and work goes on", async (folder) => {
  const { tryLock } = Deno.FsFile.prototype;
  Deno.FsFile.prototype.tryLock = () => Promise.reject(new Error("Operation not supported (os error 95)"));
  const notes: string[] = [];
  try {
    using lock = new WorkLock(folder, { words, terminal: { ...terminal, note: (text) => notes.push(text) } });
    await lock.takeIfThere();
    await lock.takeFolder();
  } finally {
    Deno.FsFile.prototype.tryLock = tryLock;
  }
  assertEquals(notes, [
    `warning: ${folder} cannot be locked (Operation not supported (os error 95)); ` +
    "see to it that no other run is at work there",
  ]);
});

folderTest(
  "a second run in a folder ends at once, readers are not kept out, and a kill frees it",
  async (folder) => {
    const run = join(folder, "run");
    const long = ["--steps", "100000", "--save-every", "1", "--eval-every", "0"];
    const child = start(programCommand(smallRun(run, ...long)));
    const ended = outcomeOf(child);
    await waitFor(async () => await savedStep(run) > 0);
    // Stopped, so that what it leaves can be compared.
    child.kill("SIGSTOP");
    const stat = async (): Promise<unknown[]> =>
      await Promise.all(
        [...await namesIn(run), "training"].map((name) => Deno.stat(join(run, name)).catch(() => null)),
      ).then((infos) => infos.map((info) => info && [info.ino, info.size, info.mtime]));
    const before = await stat();
    const parts = [
      `Cannot train in ${run}: another run is at work there`,
      "wait for its end, or give another --out",
    ];
    await assertFails(["train", "--out", run, "--resume"], { code: 1, parts });
    await assertFails(smallRun(run, ...long), { code: 1, parts });
    assertEquals(await stat(), before);
    await morDone(["generate", run, "-p", "x", "-n", "1"]);
    await morDone(["train", "--out", run, "--resume", "--dry-run"]);
    child.kill("SIGKILL");
    assertEquals((await ended).code, 137);
    const last = String(await savedStep(run) + 1);
    await morDone(["train", "--out", run, "--resume", "--stop-after", last]);
  },
);

folderTest(
  "a second run that writes the same results ends at once, and a killed one is gone on with",
  async (folder) => {
    const run = join(folder, "run");
    await morDone(smallRun(run, "--steps", "1", "--eval-every", "0"));
    const prompts = join(folder, "prompts.jsonl");
    const lines = Array.from({ length: 150 }, (_, i) => JSON.stringify({ prompt: `text ${i}` }) + "\n");
    await Deno.writeTextFile(prompts, lines.join(""));
    const out = join(folder, "results.jsonl");
    const args = [
      "generate",
      run,
      "--prompts",
      prompts,
      "--out",
      out,
      "-n",
      "40",
      "--batch-size",
      "4",
      "--seed",
      "1",
    ];
    const child = start(programCommand(args));
    const ended = outcomeOf(child);
    await waitFor(async () => (await Deno.stat(out)).size > 0);
    child.kill("SIGSTOP");
    const before = await Deno.readTextFile(out);
    const parts = [`Cannot write ${out}: another run is writing it`];
    for (const more of [[], ["--resume"]]) await assertFails([...args, ...more], { code: 1, parts });
    assertEquals(await Deno.readTextFile(out), before);
    child.kill("SIGKILL");
    assertEquals((await ended).code, 137);
    await morDone([...args, "--resume"]);
    const indices = (await Deno.readTextFile(out)).trimEnd().split("\n").map((line) =>
      JSON.parse(line).index
    );
    assertEquals(indices.toSorted((a, b) => a - b), lines.map((_, i) => i));
    assertEquals(await namesIn(folder), ["prompts.jsonl", "results.jsonl", "run"]);
  },
);
