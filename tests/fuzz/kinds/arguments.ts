/** Command lines. */
import { assert } from "@std/assert";
import type { Command } from "@cliffy/command";
import { checkArguments } from "../../../cli/argument_checks.ts";
import { checkGenerateFlags } from "../../../cli/generate_flags.ts";
import { rootCommand } from "../../../cli/root.ts";
import { resolveFlags } from "../../../cli/train_flags.ts";
import { checkWork } from "../../../cli/work_flags.ts";
import { createRandom } from "../../support/random.ts";
import { type FuzzInput, type FuzzKind, isDone } from "../fuzz_kind.ts";

const NAME = "arguments.json";

// deno-lint-ignore no-explicit-any -- as rootCommand
type AnyCommand = Command<any>;

/** Checks of a command's flags that need nothing but the flags. */
// deno-lint-ignore no-explicit-any -- whatever was parsed
const CHECKS: Readonly<Record<string, (flags: any, model: string) => unknown>> = {
  generate: checkGenerateFlags,
  profile: checkWork,
  train: ({ config: _, resume: __, ...flags }) => resolveFlags(flags),
};

const VALUES = [
  ...[
    "0",
    "1",
    "-1",
    "5",
    "1.5",
    "-0",
    "1e3",
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "0x10",
    "9007199254740993",
    "",
  ],
  ...[
    " ",
    "-",
    "--",
    "=",
    "tiny",
    "a.txt",
    "f16",
    "f32",
    "auto",
    "causal",
    "q8_0",
    "true",
    "false",
    "-x",
    "--y=z",
  ],
  ...[
    "__proto__",
    "constructor",
    "世界",
    "a".repeat(500),
    "a,b",
    "hf:a/b",
    "../x",
    "'",
    '"',
    "*",
    "4294967296",
  ],
];

/** All commands under one, with it. */
function* family(command: AnyCommand): Generator<AnyCommand> {
  yield command;
  for (const child of command.getCommands(true)) yield* family(child);
}

/** The command line, of which no command does more than check its flags. */
function idleCommand(): AnyCommand {
  const root = rootCommand().noExit();
  for (const command of family(root)) {
    command.showHelp = command.showVersion = command.showLongVersion = (): void => {};
    command.reset().action(async (flags: Record<string, unknown>, ...rest: unknown[]) => {
      await CHECKS[command.getName()]?.(flags, String(rest[0]));
      for (const [name, value] of Object.entries(flags)) {
        assert(typeof value !== "number" || Number.isFinite(value), `--${name} is ${value}`);
      }
    });
  }
  return root;
}

/** Words after `mor`. */
export function openArguments(): Promise<FuzzKind> {
  const commands = [...family(rootCommand())].map((command) => ({
    words: command.getPath().split(" ").slice(1),
    flags: command.getOptions(true).flatMap(({ flags }: { readonly flags: readonly string[] }) =>
      flags.join(" ").match(/--?[a-z][\w-]*/g) ?? []
    ),
  }));

  function make(seed: number): FuzzInput {
    const random = createRandom(seed ^ 0xa96);
    const pick = <T>(choices: readonly T[]): T => choices[random.integer(choices.length)]!;
    const { words, flags } = pick(commands);
    const args = [...words];
    for (let count = random.integer(7); count > 0; count--) {
      const flag = pick(random.integer(12) === 0 ? pick(commands).flags : flags) ?? "--nothing";
      const changed = random.integer(15) === 0 ? flag + pick(["x", "-", "=", ""]) : flag;
      const kinds = [[changed], [changed, pick(VALUES)], [changed, pick(VALUES)], [
        `${changed}=${pick(VALUES)}`,
      ], [pick(VALUES)]];
      args.splice(random.integer(10) === 0 ? 0 : args.length, 0, ...pick(kinds));
    }
    return { name: NAME, bytes: new TextEncoder().encode(JSON.stringify(args)) };
  }
  async function check({ bytes }: FuzzInput): Promise<boolean> {
    const args: string[] = JSON.parse(new TextDecoder().decode(bytes));
    const work = (): Promise<unknown> => {
      checkArguments(args);
      return idleCommand().parse(args);
    };
    return await isDone(work, { names: [""] });
  }
  return Promise.resolve({ make, check });
}
