/** What a command may do: known from its arguments, the same in every way to start it, and no more than it needs. */
import { assert, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { rootCommand } from "../../cli/root.ts";
import { NETWORK_COMMAND, OUTPUT_FLAGS } from "../../cli/written_paths.ts";
import { programPermissions } from "../../tools/permissions.ts";
import { selfExtractingHeader } from "../../tools/self_extracting.ts";
import {
  assertLeastPermissions,
  permissionProbe,
  preparePermissionProbe,
  PROBED_ARGS,
} from "../support/permission_probe.ts";
import { folderTest, run } from "../support/program.ts";
import { createRandom } from "../support/random.ts";

/** What `--allow-write` says for some arguments; null for anywhere. */
function writable(args: readonly string[], place: { cwd: string; cache: string }): string[] | null {
  const getEnv = (name: string): string | undefined => name === "XDG_CACHE_HOME" ? place.cache : undefined;
  const flags = programPermissions(args, { cwd: place.cwd, getEnv });
  assert(!flags.includes("--allow-run") && !flags.includes("-A"));
  const flag = flags.find((name) => name.startsWith("--allow-write"));
  return flag === "--allow-write" ? null : flag?.replace("--allow-write=", "").split(",") ?? [];
}

folderTest("a command may write its outputs, and its tuning, alone", async (folder) => {
  await Deno.mkdir(join(folder, "there"));
  const place = { cwd: folder, cache: "/cache" };
  const tuning = "/cache/mor/tuning";
  const cases: readonly (readonly [readonly string[], readonly string[] | null])[] = [
    [["generate", "m", "-p", "x"], [tuning]],
    [["--quiet", "eval", "m", "--data", "x"], [tuning]],
    [["train", "--out", "run"], ["run", "run.unfinished", ".run.unfinished", tuning]],
    [["train", "--out=there/run/"], [
      "there/run",
      "there/run.unfinished",
      "there/.run.unfinished",
      tuning,
    ]],
    [["profile", "m", "--html", "new/a.html", "--trace", "t"], [
      ...["new/a.html", "new/a.html.unfinished", "new/.a.html.unfinished", "new"],
      ...["t", "t.unfinished", ".t.unfinished", tuning],
    ]],
    [["import", "x", "--out", "new/er/est"], [
      ...["new/er/est", "new/er/est.unfinished", "new/er/.est.unfinished", "new"],
      tuning,
    ]],
    [["pull", "hf:a/b"], ["/cache/mor/models", tuning]],
    [["demo", "--data", "x"], [".mor/demo", ".mor/demo.unfinished", ".mor/.demo.unfinished", ".mor", tuning]],
    [["tokenizer", "train", "--out", "/t.json"], [
      ...["/t.json", "/t.json.unfinished", "/.t.json.unfinished"],
      ...[
        "/tokenizer_config.json",
        "/tokenizer_config.json.unfinished",
        "/.tokenizer_config.json.unfinished",
      ],
      tuning,
    ]],
    // Where it cannot be known, or not be told to Deno.
    [["train", "--config", "settings.json"], null],
    [["import", "x", "--out", "a,b"], null],
    [["import", "x", "--out", "."], null],
    [["import", "x", "--out", "there/.."], null],
  ];
  for (const [args, wanted] of cases) assertEquals(writable(args, place), wanted, args.join(" "));
});

/** Flags that name what is read. */
const INPUT_FLAGS = [
  "--config",
  "--data",
  "--eval",
  "--file",
  "--ids",
  "--init",
  "--model",
  "--prompts",
  "--tokenizer",
];

Deno.test("every flag that takes a path is one of the outputs or one of the inputs", () => {
  const commands = [rootCommand()];
  const flags = new Set<string>();
  // Commands of commands are found on the way.
  for (const command of commands) {
    commands.push(...command.getCommands());
    for (const option of command.getOptions()) {
      if (!option.args.some(({ type }) => type === "file")) continue;
      flags.add(option.flags.find((flag) => flag.startsWith("--"))!);
    }
  }
  assertEquals([...flags].sort(), [...INPUT_FLAGS, ...OUTPUT_FLAGS].sort());
});

Deno.test("only pull has the network, and only a comparison of revisions other programs", () => {
  const has = (args: readonly string[], flag: string): boolean =>
    programPermissions(args).some((name) => name.startsWith(flag));
  for (const command of rootCommand().getCommands().map((child) => child.getName())) {
    if (command === NETWORK_COMMAND) continue;
    assertEquals([has([command, "pull"], "--allow-net"), has([command], "--allow-run")], [false, false]);
  }
  assert(has(["-q", "pull", "hf:a/b"], "--allow-net"));
  assert(has(["bench", "compare", "m", "--base", "--revision HEAD"], "--allow-run=deno,git"));
});

/** Random arguments of paths, flags and commands that the script and the program must understand alike. */
function randomArgs(seed: number): string[] {
  const random = createRandom(seed);
  const pick = <T>(choices: readonly T[]): T => choices[random.integer(choices.length)]!;
  const names = [
    "a",
    "there",
    ".",
    "",
    "x y",
    "t.json",
    "a'b",
    "$HOME",
    "*",
    "é",
    "a,b",
    "a,b.json",
    "c:",
    "-",
    "\\",
  ];
  const path = (): string => {
    const parts = Array.from({ length: 1 + random.integer(3) }, () => pick(names));
    // ".." only at the ends: after a folder that is not there the shell and Deno disagree about it.
    if (random.integer(8) === 0) parts.push("..");
    return pick(["", "", "/", "../"]) + parts.join("/");
  };
  const words = [
    () => pick(["train", "generate", "tokenizer", "demo", "pull", "eval", "--config", "--config=x", "-q"]),
    () => pick(OUTPUT_FLAGS),
    () => `${pick(OUTPUT_FLAGS)}=${path()}`,
    path,
  ];
  return Array.from({ length: random.integer(7) }, () => pick(words)());
}

folderTest("the self-extracting program gives the permissions that the task gives", async (folder) => {
  await Deno.mkdir(join(folder, "there", "a"), { recursive: true });
  // Where the archive would be unpacked stands a program that shows its arguments.
  const unpacked = join(folder, "cache", "mor", "bin", "hash");
  await Deno.mkdir(unpacked, { recursive: true });
  await Deno.writeTextFile(join(unpacked, "deno"), "#!/bin/sh\nprintf '%s\\0' \"$@\"\n", { mode: 0o755 });
  await Deno.mkdir(join(unpacked, "program"));
  await Deno.writeTextFile(join(unpacked, "program", "entry.js"), "");
  const script = join(folder, "mor.sh");
  await Deno.writeTextFile(script, selfExtractingHeader({ hash: "hash", os: "linux" }));

  const known = [["pull", "hf:a/b c"], ["-q", "pull"], [], ["train", "pull"], ["generate", "-p", "pull"]];
  const sets = [...known, ...Array.from({ length: 300 }, (_, seed) => randomArgs(seed))];
  const quote = (arg: string): string => `'${arg.replaceAll("'", `'\\''`)}'`;
  const calls = sets.map((args) => `sh "$1" ${args.map(quote).join(" ")}; echo`).join("\n");
  const cache = join(folder, "cache");
  const env = { PATH: Deno.env.get("PATH") ?? "", XDG_CACHE_HOME: `${cache}/` };
  const options = { cwd: folder, env, clearEnv: true };
  const { code, stdout, stderr } = await run(["sh", "-c", calls, "sh", script], options);
  assertEquals([code, stderr], [0, ""]);
  const getEnv = (name: string): string | undefined => name === "XDG_CACHE_HOME" ? cache : undefined;
  for (const [i, line] of stdout.trimEnd().split("\n").entries()) {
    const shown = line.split("\0").slice(0, -1);
    const met = shown.slice(shown.indexOf("--no-npm") + 1);
    const wanted = [
      ...programPermissions(sets[i]!, { cwd: folder, getEnv }),
      join(unpacked, "program", "entry.js"),
      ...sets[i]!,
    ];
    assertEquals(comparable(met), comparable(wanted), JSON.stringify(sets[i]));
  }
});

/** Permissions say the same in any order. */
function comparable(flags: readonly string[]): { permissions: string[]; rest: string[] } {
  const program = flags.findIndex((flag) => flag.endsWith("entry.js"));
  const permissions = flags.slice(0, program).map((flag) => flag.split(",").sort().join());
  return { permissions: permissions.sort(), rest: flags.slice(program) };
}

folderTest(
  "generate can open no socket, run no program and write nowhere but its results",
  async (folder) => {
    await preparePermissionProbe(folder);
    const flags = programPermissions(PROBED_ARGS, { cwd: folder });
    const command = [Deno.execPath(), "run", "-q", "--no-config", "--no-lock", ...flags] as const;
    const { code, stdout, stderr } = await run([...command, permissionProbe], {
      cwd: folder,
      env: { SECRET: "x" },
    });
    assertEquals(code, 0, stderr);
    assertLeastPermissions(stdout, folder);
  },
);

Deno.test("with all permissions, as in a compiled binary, generate gives up network and writing", async () => {
  const script = fromFileUrl(new URL("../support/dropped_permissions.ts", import.meta.url));
  const statesOf = async (...args: string[]): Promise<string[][]> => {
    const flags = [
      "-q",
      "--no-config",
      "--no-lock",
      "--no-prompt",
      "--allow-net",
      "--allow-read",
      "--allow-write",
    ];
    return JSON.parse((await run([Deno.execPath(), "run", ...flags, script, ...args])).stdout);
  };
  // Network, import, run, ffi, write; "prompt" is a refusal where nobody is asked.
  const [no, yes] = ["prompt", "granted"] as const;
  assertEquals(await statesOf("generate", "m"), [[no, no, no, no, yes], [no, no, no, no, no]]);
  assertEquals(await statesOf("pull", "hf:a/b"), [[yes, no, no, no, yes], [yes, no, no, no, no]]);
});
