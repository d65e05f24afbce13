/** The help of a command: what was declared of it, laid out for the terminal's width. No word is ever broken. */
import type { Command } from "@cliffy/command";

// deno-lint-ignore no-explicit-any -- see root.ts
type AnyCommand = Command<any>;
type Option = ReturnType<AnyCommand["getOptions"]>[number];
type Argument = ReturnType<AnyCommand["getArguments"]>[number];

/** Lines longer than this are hard to read, however wide the terminal is. */
const WIDEST = 100;
/** With less room than this beside the names, explanations stand below them. */
const NARROWEST_TEXT = 36;
/** Between names and explanations. */
const GAP = 2;

/** Splits text at blanks into lines of at most `width` characters; a longer word has a line of its own. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(/\s+/).filter((part) => part !== "")) {
    const line = lines.at(-1);
    if (line !== undefined && line.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${line} ${word}`;
    } else lines.push(word);
  }
  return lines;
}

function indent(lines: readonly string[], by: number): string[] {
  return lines.map((line) => " ".repeat(by) + line);
}

interface Entry {
  readonly name: string;
  readonly text: string;
}

/** Names on the left, what they mean on the right; below them where there is no room. */
function layOut(entries: readonly Entry[], { column, width }: { column: number; width: number }): string[] {
  const room = width - 2 - column - GAP;
  return entries.flatMap(({ name, text }) => {
    if (room < NARROWEST_TEXT) return indent([name, ...indent(wrap(text, width - 6), 4)], 2);
    const [first = "", ...rest] = wrap(text, room);
    return indent([name.padEnd(column + GAP) + first, ...indent(rest, column + GAP)], 2);
  });
}

function showArgument({ name, optional, variadic }: Argument): string {
  const text = variadic ? `${name}...` : name;
  return optional ? `[${text}]` : `<${text}>`;
}

function showOption({ flags, args }: Option): string {
  return [flags.join(", "), ...args.map((argument) => showArgument(argument))].join(" ");
}

function describeOption({ description, required, default: value }: Option): string {
  if (required) return `${description} (required)`;
  return value === undefined ? description : `${description} (default ${value})`;
}

function usage(command: AnyCommand): string {
  const required = command.getOptions().filter((option) => option.required).map((option) => {
    const flag = option.flags.find((other) => other.startsWith("--")) ?? option.flags[0];
    return [flag, ...option.args.map((argument) => showArgument(argument))].join(" ");
  });
  const commands = command.getCommands().length > 0 ? ["<command>"] : [];
  const args = command.getArguments().map((argument) => showArgument(argument));
  return [command.getPath(), ...commands, ...args, ...required, "[flags]"].join(" ");
}

/** Options by heading: the command's own, in the order they were declared, then those that every command has. */
function optionGroups(command: AnyCommand): Map<string, Entry[]> {
  const isRoot = command.getParent() === undefined;
  const isShared = ({ name, global }: Option): boolean => !isRoot && (global === true || name === "help");
  const options = command.getOptions();
  const groups = new Map<string, Entry[]>();
  for (const option of [...options.filter((one) => !isShared(one)), ...options.filter(isShared)]) {
    const heading = isShared(option) ? "Every command" : option.groupName ?? "Options";
    const entry = { name: showOption(option), text: describeOption(option) };
    groups.set(heading, [...groups.get(heading) ?? [], entry]);
  }
  return groups;
}

/** Some of Cliffy's own texts have colours. */
function plain(text: string): string {
  // deno-lint-ignore no-control-regex -- that is what a colour starts with
  return text.replaceAll(/\x1b\[[0-9;]*m/g, "");
}

/** What a list of commands says of one. */
function firstSentence(text: string): string {
  return /^.*?\.(?= |$)/.exec(text)?.[0] ?? text;
}

/** The help as text without a line break at its end. `columns` is the width of the terminal. */
export function formatHelp(command: AnyCommand, { columns }: { columns: number }): string {
  const width = Math.min(columns, WIDEST);
  const commands = command.getCommands().map((child) => ({
    name: child.getName(),
    text: firstSentence(child.getShortDescription()),
  }));
  const groups = [
    ...optionGroups(command),
    ...(commands.length > 0 ? [["Commands", commands] as const] : []),
  ];
  const column = Math.max(...groups.flatMap(([, entries]) => entries.map(({ name }) => name.length)));
  const [first = "", ...rest] = wrap(`Usage: ${usage(command)}`, width - 4);
  const sections = [
    [first, ...indent(rest, 4)],
    wrap(plain(command.getDescription()), width),
    ...groups.map(([heading, entries]) => [`${heading}:`, ...layOut(entries, { column, width })]),
    // Examples are to be copied: their lines stay whole.
    [
      "Examples:",
      ...command.getExamples().flatMap(({ name, description }) => [`  ${name}:`, `    ${description}`]),
    ],
    ...Object.entries(command.getMainCommand().getMeta()).map(([name, value]) =>
      wrap(`${name}: ${value}`, width)
    ),
  ];
  return sections.map((lines) => lines.join("\n")).join("\n\n");
}
