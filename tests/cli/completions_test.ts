/** The scripts that `mor completions` prints, asked in bash as its line editor asks them. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "@std/path";
import { folderTest, morDone, run } from "../support/program.ts";

/** What bash offers for a line whose last word is not finished; the script is in the folder as mor.bash. */
async function complete(folder: string, ...words: readonly string[]): Promise<string[]> {
  const ask = [
    // Of the package's scripts some ask the program itself.
    "mor() { :; }",
    "source ./mor.bash",
    'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}',
    "$(complete -p mor | sed 's/.*-F \\([^ ]*\\).*/\\1/')",
    `printf '%s\\n' "\${COMPREPLY[@]}"`,
  ].join("\n");
  const { code, stdout, stderr } = await run(["bash", "-c", ask, "bash", ...words], { cwd: folder });
  assertEquals([code, stderr], [0, ""]);
  return stdout.split("\n").filter((line) => line !== "").sort();
}

folderTest("mor completions bash completes commands, flags and files", async (folder) => {
  const { stdout } = await morDone(["completions", "bash"]);
  await Deno.writeTextFile(join(folder, "mor.bash"), stdout);
  await Deno.writeTextFile(join(folder, "my book.txt"), "");
  assertEquals(await complete(folder, "mor", "tr"), ["train"]);
  assertEquals(await complete(folder, "mor", "train", "--st"), ["--steps", "--stop-after"]);
  assertEquals(await complete(folder, "mor", "bench", "comp"), ["compare"]);
  assertEquals(await complete(folder, "mor", "bench", "compare", "tiny", "--pa"), ["--pairs"]);
  assertEquals(await complete(folder, "mor", "train", "--data", "my"), ["my book.txt"]);
  assertEquals(await complete(folder, "mor", "train", "--steps", "3", "--data", "x", "--mo"), ["--model"]);
  assert((await complete(folder, "mor", "")).includes("generate"));
});

/** Checks a script's grammar where the shell is there. */
async function checkSyntax(shell: string, script: string): Promise<"checked" | "no such shell"> {
  // The script is read to its end in any case: a pipe that nobody reads breaks.
  const check = `command -v ${shell} > /dev/null || { cat > /dev/null; exit 77; }; ${shell} -n`;
  const { code, stderr } = await run(["sh", "-c", check], { input: script });
  if (code === 77) return "no such shell";
  assertEquals([code, stderr], [0, ""], shell);
  return "checked";
}

for (const shell of ["bash", "fish", "zsh"]) {
  Deno.test(`mor completions ${shell} names every command and parses`, async () => {
    const { stdout } = await morDone(["completions", shell]);
    for (const name of ["train", "generate", "throughput", "tokenizer"]) {
      assertMatch(stdout, new RegExp(`\\b${name}\\b`));
    }
    const result = await checkSyntax(shell, stdout);
    if (shell === "bash") assertEquals(result, "checked");
    else if (result === "no such shell") {
      // deno-lint-ignore no-console -- a check that is left out has to be seen
      console.warn(`${shell} is not here: its script was made and searched, not parsed`);
    }
  });
}
