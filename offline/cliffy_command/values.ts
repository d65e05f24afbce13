/** From the texts that were typed to the values the action gets. */
import type { Command } from "./command.ts";
import { type OptionDefinition, toFlag, toKey, type ValueDefinition } from "./definitions.ts";
import { didYouMean, ValidationError } from "./errors.ts";
import { allOptions, findType } from "./state.ts";
import { Type } from "./types.ts";

/** What was typed for each option, by name: one text a value, nothing for a bare flag. */
export type TypedOptions = ReadonlyMap<string, readonly (string | undefined)[]>;

function readText(
  cmd: Command,
  label: "Option" | "Argument",
  of: ValueDefinition & { shown: string },
  text: string,
): unknown {
  const type = findType(cmd, of.type);
  const read = (value: string): unknown => {
    const typed = { label, name: of.shown, value, type: of.type };
    return type instanceof Type ? type.parse(typed) : type(typed);
  };
  return of.list ? text.split(",").map(read) : read(text);
}

function readOptionValue(
  cmd: Command,
  option: OptionDefinition,
  texts: readonly (string | undefined)[],
): unknown {
  const { value: definition, settings } = option;
  const flag = toFlag(option.name);
  const values = texts.map((text) => {
    if (!definition || text === undefined) return !option.name.startsWith("no-");
    return readText(cmd, "Option", { ...definition, shown: flag }, text);
  });
  if (settings.collect) {
    if (!settings.value) return values;
    return values.reduce((previous, value) => settings.value!(value, previous), undefined);
  }
  if (definition?.variadic) return settings.value ? settings.value(values) : values;
  if (values.length > 1) {
    throw new ValidationError(
      `Option "${flag.replace("--no-", "--")}" can only occur once, but was found several times.`,
    );
  }
  return settings.value ? settings.value(values[0]) : values[0];
}

function readDefault({ default: given, value }: OptionDefinition["settings"]): unknown {
  const made = typeof given === "function" ? given() : given;
  return value ? value(made) : made;
}

function checkRelations(
  options: readonly OptionDefinition[],
  typed: TypedOptions,
  values: Record<string, unknown>,
): void {
  for (const { name, settings } of options.filter((option) => typed.has(option.name))) {
    const conflict = settings.conflicts?.find((other) => typed.has(other));
    if (conflict !== undefined) {
      throw new ValidationError(`Option "${toFlag(name)}" conflicts with option "${toFlag(conflict)}".`);
    }
    const missing = settings.depends?.find((other) => values[toKey(other)] === undefined);
    if (missing !== undefined) {
      throw new ValidationError(`Option "${toFlag(name)}" depends on option "${toFlag(missing)}".`);
    }
  }
  for (const { name, settings } of options) {
    if (!settings.required || toKey(name) in values) continue;
    const excused = options.some((other) =>
      typed.has(other.name) && other.settings.conflicts?.includes(name)
    );
    if (!excused) throw new ValidationError(`Missing required option "${toFlag(name)}".`);
  }
}

/** The record of options by camel-case key. @throws {ValidationError} on a value or a combination that is wrong. */
export function readOptions(cmd: Command, typed: TypedOptions): Record<string, unknown> {
  const options = allOptions(cmd);
  const values: Record<string, unknown> = {};
  for (const option of options) {
    const texts = typed.get(option.name);
    if (texts) values[toKey(option.name)] = readOptionValue(cmd, option, texts);
  }
  for (const option of options) {
    const key = toKey(option.name);
    if (key in values) continue;
    const isLoneNegation = option.name.startsWith("no-") &&
      !options.some(({ name }) => name === option.name.slice(3));
    if (option.settings.default !== undefined) values[key] = readDefault(option.settings);
    else if (isLoneNegation) values[key] = true;
  }
  checkRelations(options, typed, values);
  return values;
}

/** The arguments in order, a variadic one spread. @throws {ValidationError} if some are missing, too many or wrong. */
export function readArguments(cmd: Command, texts: readonly string[]): unknown[] {
  const definitions = cmd.getArguments();
  const [first] = texts;
  if (definitions.length === 0 && first !== undefined) {
    const names = cmd.getCommands().map((command) => command.getName());
    throw new ValidationError(
      names.length > 0
        ? `Unknown command "${first}".${didYouMean("command", first, names)}`
        : `No arguments allowed for command "${cmd.getPath()}".`,
    );
  }
  const missing = definitions.slice(texts.length).filter((definition) => !definition.optional);
  if (missing.length > 0) {
    throw new ValidationError(`Missing argument(s): ${missing.map(({ name }) => name).join(", ")}`);
  }
  const last = definitions.at(-1);
  if (texts.length > definitions.length && !last?.variadic) {
    throw new ValidationError(`Too many arguments: ${texts.slice(definitions.length).join(" ")}`);
  }
  return texts.map((text, index) => {
    const definition = definitions[index] ?? last!;
    return readText(cmd, "Argument", { ...definition, shown: definition.name }, text);
  });
}
