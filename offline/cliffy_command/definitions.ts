/** Options and arguments as records, read from definitions such as `-n, --steps <n:integer>`. */

/** One value in a definition: `<name:type>`, `[name:type]`, `<name...:type>`, `<name:type[]>`. */
export interface ValueDefinition {
  readonly name: string;
  readonly type: string;
  readonly optional: boolean;
  readonly variadic: boolean;
  /** Split at commas. */
  readonly list: boolean;
  readonly description?: string | undefined;
}

// deno-lint-ignore no-explicit-any -- values have the type that the option's text names; callers annotate theirs
export type AnyValue = any;

/** Settings of an option, a subset of the package's. */
export interface OptionOptions {
  default?: unknown;
  /** Shown in the help instead of the default itself. */
  defaultText?: string | ((value: AnyValue) => string);
  required?: boolean;
  hidden?: boolean;
  /** May occur several times; the values become an array. */
  collect?: boolean;
  conflicts?: string[];
  depends?: string[];
  global?: boolean;
  /** Maps the value that was read; with `collect`, `previous` is what earlier ones gave. */
  value?: (value: AnyValue, previous?: AnyValue) => unknown;
}

/** An option as registered. */
export interface OptionDefinition {
  /** Long name without dashes, as typed: `no-color`, `batch-size`. */
  readonly name: string;
  readonly flags: readonly string[];
  readonly value: ValueDefinition | undefined;
  readonly description: string;
  readonly group: string | undefined;
  readonly settings: OptionOptions;
}

/** An option as the package's `getOptions` shows it. */
export interface Option extends OptionOptions {
  readonly name: string;
  readonly flags: readonly string[];
  readonly args: readonly ValueDefinition[];
  readonly description: string;
  readonly groupName?: string | undefined;
}

/** The record that `getOptions` shows of an option. */
export function showOption({ name, flags, value, description, group, settings }: OptionDefinition): Option {
  return { ...settings, name, flags, args: value ? [value] : [], description, groupName: group };
}

/** Reads one `<name:type>`. */
export function readValue(text: string, description?: string): ValueDefinition {
  const [name = "", type = "string"] = text.slice(1, -1).split(":");
  return {
    name: name.replaceAll("...", ""),
    type: type.replace("[]", ""),
    optional: text.startsWith("["),
    variadic: name.includes("..."),
    list: type.endsWith("[]"),
    description,
  };
}

/** Reads `<a:string> [b:integer] [...rest:string]`. */
export function readValues(text: string): ValueDefinition[] {
  return text.split(/ +/).filter((part) => part !== "").map((part) => readValue(part));
}

/** Reads an option's flags and value. @throws {TypeError} if it has no flag. */
export function readOption(
  text: string,
  rest: Pick<OptionDefinition, "description" | "group" | "settings">,
): OptionDefinition {
  const parts = text.trim().split(/[, =] */);
  const flags = parts.filter((part) => part.startsWith("-"));
  const value = parts.find((part) => /^[<[]/.test(part));
  const longest = flags.find((flag) => flag.startsWith("--")) ?? flags[0];
  if (longest === undefined) throw new TypeError(`Cannot read option "${text}": it has no flag`);
  return { name: longest.replace(/^-+/, ""), flags, value: value ? readValue(value) : undefined, ...rest };
}

const OUTPUT = { group: undefined, settings: {} };

/** What every command has. */
export const HELP_OPTION = readOption("-h, --help", { description: "Show this help.", ...OUTPUT });

/** What a program with a version has. */
export const VERSION_OPTION = readOption("-V, --version", {
  description: "Show the version number for this program.",
  ...OUTPUT,
});

/** The flag of an option's name: `n` becomes `-n`, `steps` becomes `--steps`. */
export function toFlag(name: string): string {
  return name.length > 1 ? `--${name}` : `-${name}`;
}

/** The key of an option in the parsed record: `batch-size` becomes `batchSize`, `no-color` becomes `color`. */
export function toKey(name: string): string {
  return name.replace(/^no-/, "").replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** A value as written in usage lines: `<name>`, `[name...]`. */
export function showValue({ name, optional, variadic }: ValueDefinition): string {
  const text = variadic ? `${name}...` : name;
  return optional ? `[${text}]` : `<${text}>`;
}
