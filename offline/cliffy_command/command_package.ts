/** Stand-in for `@cliffy/command` on `commander`: the part that a program with a few sub-commands uses. */
export { Command, type CommandResult, type TypeOptions } from "./command.ts";
export type { Option, OptionOptions } from "./definitions.ts";
export { ValidationError, type ValidationErrorOptions } from "./errors.ts";
export type { ActionHandler, ErrorHandler, Example, HelpHandler } from "./state.ts";
export {
  type ArgumentValue,
  BooleanType,
  EnumType,
  FileType,
  IntegerType,
  NumberType,
  StringType,
  Type,
  type TypeHandler,
} from "./types.ts";
