/** What can be typed after a command, as the scripts of all shells need it. */
import type { Command } from "./command.ts";
import type { Option, ValueDefinition } from "./definitions.ts";
import { findType } from "./state.ts";
import { CommandType, FileType } from "./types.ts";

/** A flag, and what may follow it: nothing, a file, or a text that no shell can know. */
export interface FlagWords {
  readonly flags: readonly string[];
  readonly description: string;
  readonly value: "none" | "file" | "text";
}

/** What can follow one command. */
export interface CommandWords {
  /** The command as typed, such as `mor bench compare`. */
  readonly path: string;
  readonly description: string;
  readonly commands: readonly { readonly name: string; readonly description: string }[];
  readonly flags: readonly FlagWords[];
  /** Whether it has arguments, which may be files. */
  readonly takesFiles: boolean;
}

function valueOf(cmd: Command, definition: ValueDefinition | undefined): FlagWords["value"] {
  if (!definition) return "none";
  return findType(cmd, definition.type) instanceof FileType ? "file" : "text";
}

function flagWords(cmd: Command, { flags, description, args }: Option): FlagWords {
  return { flags, description, value: valueOf(cmd, args[0]) };
}

/** The command and all below it, each under the path that is typed; `name` stands for the program. */
export function completionWords(cmd: Command, name: string): CommandWords[] {
  const path = [name, ...cmd.getPath().split(" ").slice(1)].join(" ");
  const children = cmd.getCommands();
  const types = cmd.getArguments().map(({ type }) => findType(cmd, type));
  // The argument of `help` is a command of the program.
  const named = types.some((type) => type instanceof CommandType)
    ? cmd.getMainCommand().getCommands()
    : children;
  const own: CommandWords = {
    path,
    description: cmd.getShortDescription(),
    commands: named.map((child) => ({
      name: child.getName(),
      description: child.getShortDescription(),
    })),
    flags: cmd.getOptions().map((option) => flagWords(cmd, option)),
    takesFiles: types.some((type) => !(type instanceof CommandType)),
  };
  return [own, ...children.flatMap((child) => completionWords(child, name))];
}

/** The name of the shell function of a program. */
export function functionName(name: string): string {
  return `_${name.replace(/[^a-zA-Z0-9]/g, "_")}`;
}

/** Text in single quotes, as bash and zsh read them. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
