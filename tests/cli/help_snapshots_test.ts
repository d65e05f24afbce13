/**
 * The help of every command, compared with the files of tests/cli/help at 80 columns, without colours.
 *
 * To write them anew: deno task test tests/cli/help_snapshots_test.ts -- --update
 */
import { assert, assertEquals } from "@std/assert";
import type { Command } from "@cliffy/command";
import { join } from "@std/path";
import { formatHelp } from "../../cli/help.ts";
import { rootCommand } from "../../cli/root.ts";
import { morDone } from "../support/program.ts";

const FOLDER = new URL("help/", import.meta.url).pathname;
const COLUMNS = 80;

// deno-lint-ignore no-explicit-any -- see cli/root.ts
type AnyCommand = Command<any>;

/** The program and all commands below it; those of `completions` are the package's, and so are their words. */
function allCommands(command: AnyCommand = rootCommand()): AnyCommand[] {
  const children = command.getName() === "completions" ? [] : command.getCommands();
  // Cliffy adds -h when it is first asked for the help.
  command.getHelp();
  return [command, ...children.flatMap((child) => allCommands(child))];
}

function fileOf(command: AnyCommand): string {
  return join(FOLDER, `${command.getPath().replace(/^mor /, "").replaceAll(" ", "_")}.txt`);
}

Deno.test("the help of every command is the one of its snapshot, and no other snapshot is left", async () => {
  const commands = allCommands();
  const files = commands.map(fileOf);
  for (const [index, command] of commands.entries()) {
    const help = formatHelp(command, { columns: COLUMNS }) + "\n";
    if (Deno.args.includes("--update")) await Deno.writeTextFile(files[index]!, help);
    assertEquals(help, await Deno.readTextFile(files[index]!), command.getPath());
  }
  const found = Array.from(Deno.readDirSync(FOLDER), ({ name }) => join(FOLDER, name));
  assertEquals(found.sort(), files.sort());
});

Deno.test("mor COMMAND --help and mor help COMMAND print the snapshot where no terminal is", async () => {
  const root = await Deno.readTextFile(join(FOLDER, "mor.txt"));
  assertEquals((await morDone(["help"])).stdout, root);
  const train = await Deno.readTextFile(join(FOLDER, "train.txt"));
  for (const args of [["train", "--help"], ["help", "train"]]) {
    assertEquals((await morDone(args)).stdout, train);
  }
  const compare = await Deno.readTextFile(join(FOLDER, "bench_compare.txt"));
  assertEquals((await morDone(["bench", "compare", "--help"])).stdout, compare);
});

Deno.test("every command's help has an example that starts with mor or a pipe to it, and the exit codes", () => {
  for (const command of allCommands()) {
    const examples = command.getExamples().map(({ description }) => description);
    assert(examples.length > 0, `${command.getPath()} has no example`);
    for (const example of examples) assert(/\bmor [\w-]/.test(example), example);
    assert(/\nExit codes: 0 done/.test(formatHelp(command, { columns: 200 })));
  }
});

Deno.test("help breaks no word at 20, 80 and 200 columns, and fits where its words do", () => {
  for (const command of allCommands()) {
    const words = (columns: number): string[] => formatHelp(command, { columns }).split(/\s+/);
    for (const columns of [20, 80, 200]) {
      assertEquals(words(columns), words(1000), `${command.getPath()} at ${columns}`);
      const [beforeExamples = ""] = formatHelp(command, { columns }).split("\nExamples:\n");
      for (const line of beforeExamples.split("\n").filter((one) => one.length > columns)) {
        // Headings, names of flags and commands, and single long words are not split.
        assert(/^( *\S+| {2}-.*[\]>]|[A-Z][\w ]+:)$/.test(line), `"${line}" is longer than ${columns}`);
      }
    }
  }
});
