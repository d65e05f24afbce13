/** What is known of a command, filled by the builder and read by the parser and the help. */
import type { AnyValue, OptionDefinition, ValueDefinition } from "./definitions.ts";
import type { Command } from "./command.ts";
import { BUILT_IN_TYPES, Type, type TypeHandler } from "./types.ts";

/** What runs a command: `this` is the command, values follow their definitions. */
export type ActionHandler = (this: Command, options: AnyValue, ...args: AnyValue[]) => unknown;

/** Called with every error before it is thrown or printed. */
export type ErrorHandler = (error: Error, cmd: Command) => unknown;

/** Makes the help of a command. */
export type HelpHandler = (cmd: Command) => string;

/** One example shown in the help. */
export interface Example {
  name: string;
  description: string;
}

/** A custom type under its name. */
export interface RegisteredType {
  readonly handler: Type<unknown> | TypeHandler;
  readonly global: boolean;
}

/** The mutable description of one command. */
export interface CommandState {
  name: string;
  parent: Command | undefined;
  version: string | undefined;
  description: string | (() => string);
  hidden: boolean;
  arguments: ValueDefinition[];
  group: string | undefined;
  action: ActionHandler | undefined;
  errorHandler: ErrorHandler | undefined;
  helpHandler: HelpHandler | undefined;
  /** Whether the parents' global options are known here and below. */
  takesGlobals: boolean;
  throws: boolean;
  exits: boolean | undefined;
  readonly options: OptionDefinition[];
  readonly commands: Map<string, Command>;
  readonly types: Map<string, RegisteredType>;
  readonly examples: Example[];
  readonly meta: Record<string, string>;
}

/** The state of a command nothing is known of yet. */
export function emptyState(): CommandState {
  return {
    name: "COMMAND",
    parent: undefined,
    version: undefined,
    description: "",
    hidden: false,
    arguments: [],
    group: undefined,
    action: undefined,
    errorHandler: undefined,
    helpHandler: undefined,
    takesGlobals: true,
    throws: false,
    exits: undefined,
    options: [],
    commands: new Map(),
    types: new Map(),
    examples: [],
    meta: {},
  };
}

/** The command and its parents, nearest first. */
export function lineage(cmd: Command): Command[] {
  const parent = cmd.getParent();
  return parent ? [cmd, ...lineage(parent)] : [cmd];
}

/** Own options and the global ones of the parents. */
export function allOptions(cmd: Command): OptionDefinition[] {
  const parent = cmd.state.takesGlobals ? cmd.getParent() : undefined;
  const inherited = parent ? allOptions(parent).filter((option) => option.settings.global) : [];
  return [...cmd.state.options, ...inherited];
}

/** The type of this name, as the command sees it. @throws {TypeError} if there is none. */
export function findType(cmd: Command, name: string): Type<unknown> | TypeHandler {
  for (const level of lineage(cmd)) {
    const found = level.state.types.get(name);
    if (found && (level === cmd || found.global)) return found.handler;
  }
  const builtIn = BUILT_IN_TYPES.get(name);
  if (!builtIn) throw new TypeError(`Unknown type "${name}"`);
  return builtIn;
}
