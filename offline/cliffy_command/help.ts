/** The help text, laid out by `commander` under the package's headings. */
import { Command as Commander } from "commander";
import type { Command } from "./command.ts";
import type { OptionDefinition } from "./definitions.ts";
import { showValue, toFlag } from "./definitions.ts";
import { toCommanderOption } from "./program.ts";
import { findType } from "./state.ts";
import { Type } from "./types.ts";

function hints(cmd: Command, { settings, value }: OptionDefinition): string[] {
  const type = value ? findType(cmd, value.type) : undefined;
  const values = type instanceof Type ? type.values?.() : undefined;
  const made = typeof settings.default === "function" ? settings.default() : settings.default;
  const text = typeof settings.defaultText === "function" ? settings.defaultText(made) : settings.defaultText;
  const shown = text ?? made;
  const flags = (names: readonly string[]): string => names.map(toFlag).join(", ");
  return [
    ...(settings.required ? ["required"] : []),
    ...(shown === undefined ? [] : [`Default: ${Deno.inspect(shown)}`]),
    ...(settings.depends?.length ? [`Depends: ${flags(settings.depends)}`] : []),
    ...(settings.conflicts?.length ? [`Conflicts: ${flags(settings.conflicts)}`] : []),
    ...(values?.length ? [`Values: ${values.map((item) => Deno.inspect(item)).join(", ")}`] : []),
  ];
}

function describe(cmd: Command, option: OptionDefinition): string {
  const [description = ""] = option.description.trim().split("\n", 1);
  const notes = hints(cmd, option);
  return notes.length > 0 ? `${description} (${notes.join(", ")})` : description;
}

function layOut(cmd: Command): Commander {
  const program = new Commander(cmd.getPath());
  program.helpOption(false).helpCommand(false).configureOutput({
    getOutHasColors: () => false,
    getOutHelpWidth: () => terminalWidth(),
  });
  program.usage([cmd.getArgsDefinition(), ...requiredOptions(cmd)].filter(Boolean).join(" ") || " ");
  program.description(cmd.getDescription());
  program.option("-h, --help", "Show this help.");
  if (!cmd.getParent() && cmd.getVersion() !== undefined) {
    program.option("-V, --version", "Show the version number for this program.");
  }
  for (const option of cmd.getOptions()) {
    const shown = toCommanderOption({ ...option, description: describe(cmd, option) });
    if (option.group !== undefined) shown.helpGroup(`${option.group}:`);
    program.addOption(shown);
  }
  for (const argument of cmd.getArguments()) {
    program.argument(showValue(argument), argument.description ?? "");
  }
  for (const child of cmd.getCommands()) {
    const line = program.command(child.getName()).helpOption(false).helpCommand(false);
    line.usage(child.getArgsDefinition()).summary(child.getShortDescription());
  }
  return program;
}

function terminalWidth(): number {
  try {
    return Deno.consoleSize().columns || 120;
  } catch {
    return 120;
  }
}

function requiredOptions(cmd: Command): string[] {
  return cmd.getOptions().filter((option) => option.settings.required).map(({ name, value }) =>
    value ? `${toFlag(name)} ${showValue(value)}` : toFlag(name)
  );
}

function section(title: string, lines: readonly string[]): string {
  return lines.length > 0 ? `\n${title}:\n${lines.map((line) => `  ${line}\n`).join("")}` : "";
}

/** The help of a command as text. */
export function formatHelp(cmd: Command): string {
  const version = cmd.getVersion();
  const facts = Object.entries({ ...(version === undefined ? {} : { Version: version }), ...cmd.getMeta() });
  const examples = cmd.getExamples().map(({ name, description }) => `${name}:  ${description}`);
  return layOut(cmd).helpInformation().replace(/ +$/gm, "") +
    section("About", facts.map(([name, value]) => `${name}: ${value}`)) +
    section("Examples", examples);
}
