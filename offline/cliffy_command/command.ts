/** The `Command` of the stand-in: builds a description of a command, which program.ts runs through `commander`. */
import {
  type AnyValue,
  HELP_OPTION,
  type Option,
  type OptionOptions,
  readOption,
  readValue,
  readValues,
  showOption,
  showValue,
  type ValueDefinition,
  VERSION_OPTION,
} from "./definitions.ts";
import { ValidationError } from "./errors.ts";
import { runProgram } from "./program.ts";
import {
  type ActionHandler,
  allOptions,
  type CommandState,
  emptyState,
  type ErrorHandler,
  type Example,
  type HelpHandler,
  lineage,
} from "./state.ts";
import type { Type, TypeHandler } from "./types.ts";

/** What {@linkcode Command.parse} found. */
export interface CommandResult {
  options: AnyValue;
  args: AnyValue[];
  literal: string[];
  cmd: Command;
}

/** Settings of a custom type: a global one is known to sub-commands too. */
export interface TypeOptions {
  global?: boolean;
}

/**
 * A command with options, arguments and sub-commands. As in the package, {@linkcode Command.command} moves the
 * builder to the command it adds, until {@linkcode Command.reset}. The type parameter exists for the package's
 * sake and says nothing here.
 */
// deno-lint-ignore no-explicit-any -- callers name one parameter; whatever it is, it must fit
export class Command<_TParentGlobals = any> {
  readonly state: CommandState = emptyState();
  #selected: Command = this;

  get #target(): CommandState {
    return this.#selected.state;
  }

  /** Sets the name shown in usage lines. */
  name(name: string): this {
    this.#target.name = name;
    return this;
  }

  /** Sets the version and adds `-V, --version`. */
  version(version: string): this {
    this.#target.version = version;
    return this;
  }

  /** Sets the description; its first line is the short one. */
  description(description: string | (() => string)): this {
    this.#target.description = description;
    return this;
  }

  /** Adds a line such as `License: MIT` to the help and the long version. */
  meta(name: string, value: string): this {
    this.#target.meta[name] = value;
    return this;
  }

  /** Leaves the command out of its parent's help. */
  hidden(): this {
    this.#target.hidden = true;
    return this;
  }

  /** Options added from here on are shown under this heading; null ends the group. */
  group(name: string | null): this {
    this.#target.group = name ?? undefined;
    return this;
  }

  /** Adds an option such as `-n, --steps <n:integer>`. */
  option(flags: string, description: string, options: OptionOptions | OptionOptions["value"] = {}): this {
    const settings: OptionOptions = typeof options === "function" ? { value: options } : options;
    this.#target.options.push(readOption(flags, { description, group: this.#target.group, settings }));
    return this;
  }

  /** Adds an option that all sub-commands take too. */
  globalOption(flags: string, description: string, options: OptionOptions = {}): this {
    return this.option(flags, description, { ...options, global: true });
  }

  /** Sets the arguments: `<checkpoint:string> [...rest:string]`. */
  arguments(definitions: string): this {
    this.#target.arguments = readValues(definitions);
    return this;
  }

  /** Adds one argument with a description. */
  argument(definition: string, description?: string): this {
    this.#target.arguments.push(readValue(definition, description));
    return this;
  }

  /** Registers a type for `<value:name>`. */
  type(name: string, handler: Type<unknown> | TypeHandler, { global = false }: TypeOptions = {}): this {
    this.#target.types.set(name, { handler, global });
    return this;
  }

  /** Registers a type that sub-commands know too. */
  globalType(name: string, handler: Type<unknown> | TypeHandler): this {
    return this.type(name, handler, { global: true });
  }

  /** Adds an example to the help. */
  example(name: string, description: string): this {
    this.#target.examples.push({ name, description });
    return this;
  }

  /** Sets what runs the command. */
  action(action: ActionHandler): this {
    this.#target.action = action;
    return this;
  }

  /** Sets what is told of errors, here and in sub-commands. */
  error(handler: ErrorHandler): this {
    this.#target.errorHandler = handler;
    return this;
  }

  /** Makes {@linkcode Command.parse} reject on wrong usage instead of printing and exiting. */
  throwErrors(): this {
    this.#target.throws = true;
    return this;
  }

  /** Like {@linkcode Command.throwErrors}; the help and the version do not exit either. */
  noExit(): this {
    this.#target.exits = false;
    return this.throwErrors();
  }

  /** Adds a sub-command (`name` may be followed by arguments) and moves the builder to it. */
  command(nameAndArguments: string, command: Command | string = ""): this {
    const [name = "", ...definitions] = nameAndArguments.split(/ +/);
    const child = command instanceof Command ? command.reset() : new Command().description(command);
    child.name(name);
    if (definitions.length > 0) child.arguments(definitions.join(" "));
    child.state.parent = this;
    this.state.commands.set(name, child);
    this.#selected = child;
    return this;
  }

  /** Moves the builder back to this command. */
  reset(): this {
    this.#selected = this;
    this.state.group = undefined;
    return this;
  }

  /** Reads the arguments and runs the command they name. @throws what the action throws; see `throwErrors`. */
  async parse(args: string[] = Deno.args): Promise<CommandResult> {
    this.reset();
    return await runProgram(this, args);
  }

  /** Leaves out the parents' global options. */
  noGlobals(): this {
    this.#target.takesGlobals = false;
    return this;
  }

  /** The help as text: what the handler makes, here or nearest above; the usage alone if there is none. */
  getHelp(): string {
    const handler = lineage(this).find((level) => level.state.helpHandler)?.state.helpHandler;
    return handler?.(this) ?? `Usage: ${this.getPath()} ${this.getArgsDefinition()}`.trim();
  }

  /** Prints the help. */
  showHelp(): void {
    // deno-lint-ignore no-console -- the package prints so, and tests listen there
    console.log(this.getHelp());
  }

  /** Sets what makes the help, here and in sub-commands; the package's own layout is left out. */
  help(handler: HelpHandler): this {
    this.#target.helpHandler = handler;
    return this;
  }

  /** Prints the version. */
  showVersion(): void {
    // deno-lint-ignore no-console -- as above
    console.log(this.getVersion());
  }

  /** Prints name, version and meta data. */
  showLongVersion(): void {
    const facts = Object.entries(this.getMeta()).map(([name, value]) => `\n${name} ${value}`);
    // deno-lint-ignore no-console -- as above
    console.log(`${this.getMainCommand().getName()} ${this.getVersion()}${facts.join("")}`);
  }

  /** Reports an error as the settings say: handler first, then throw, or print with the help and exit. */
  throw(error: Error): never {
    const levels = lineage(this);
    if (error instanceof ValidationError) error.cmd = this;
    levels.find((level) => level.state.errorHandler)?.state.errorHandler?.(error, this);
    if (levels.some((level) => level.state.throws) || !(error instanceof ValidationError)) throw error;
    this.showHelp();
    // deno-lint-ignore no-console -- as above
    console.error(`  error: ${error.message}\n`);
    Deno.exit(error.exitCode);
  }

  getName(): string {
    return this.state.name;
  }

  getParent(): Command | undefined {
    return this.state.parent;
  }

  getMainCommand(): Command {
    return lineage(this).at(-1)!;
  }

  /** Names of the parents and the command, separated by spaces. */
  getPath(): string {
    return lineage(this).map((level) => level.getName()).reverse().join(" ");
  }

  getVersion(): string | undefined {
    return lineage(this).find((level) => level.state.version !== undefined)?.state.version;
  }

  getDescription(): string {
    const { description } = this.state;
    return typeof description === "function" ? description() : description;
  }

  /** First line of the description. */
  getShortDescription(): string {
    return this.getDescription().trim().split("\n", 1)[0]!;
  }

  getArguments(): ValueDefinition[] {
    return this.state.arguments;
  }

  /** Arguments as written in usage lines. */
  getArgsDefinition(): string {
    return this.state.arguments.map(showValue).join(" ");
  }

  /** Help, version, own and inherited options, without hidden ones unless asked for. */
  getOptions(hidden = false): Option[] {
    const isVersioned = !this.getParent() && this.getVersion() !== undefined;
    return [HELP_OPTION, ...(isVersioned ? [VERSION_OPTION] : []), ...allOptions(this)]
      .filter((option) => hidden || !option.settings.hidden).map(showOption);
  }

  /** Sub-commands, without hidden ones unless asked for. */
  getCommands(hidden = false): Command[] {
    return [...this.state.commands.values()].filter((command) => hidden || !command.state.hidden);
  }

  /** The sub-command of this name. */
  getCommand(name: string, hidden = false): Command | undefined {
    return this.getCommands(hidden).find((command) => command.getName() === name);
  }

  getExamples(): Example[] {
    return this.state.examples;
  }

  getMeta(): Record<string, string> {
    return this.state.meta;
  }

  /** Whether help and version end the process. */
  protected shouldExit(): boolean {
    return lineage(this).find((level) => level.state.exits !== undefined)?.state.exits ?? true;
  }

  /** Ends the process with success, unless told not to. */
  exitAfterOutput(): void {
    if (this.shouldExit()) Deno.exit(0);
  }
}
