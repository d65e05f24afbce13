/** Runs a command through `commander`, which splits the command line; values are read by values.ts. */
import { Command as Commander, CommanderError, Option } from "commander";
import type { Command, CommandResult } from "./command.ts";
import { type OptionDefinition, showValue, toFlag } from "./definitions.ts";
import { didYouMean, ValidationError } from "./errors.ts";
import { allOptions } from "./state.ts";
import { readArguments, readOptions } from "./values.ts";

/** Thrown inside the parser to leave it for the help or the version. */
class OutputRequest {
  constructor(readonly kind: "help" | "version") {}
}

/** An option in commander's words; types are left out, they are read later. */
function toCommanderOption({ flags, value }: OptionDefinition): Option {
  const shown = [...flags].sort((a, b) => a.length - b.length).join(", ");
  return new Option(value ? `${shown} ${showValue(value)}` : shown);
}

interface Session {
  readonly typed: Map<string, (string | undefined)[]>;
  /** Where the command line has led so far: errors belong to it. */
  current: Command;
  result: CommandResult | undefined;
}

function addOption(program: Commander, definition: OptionDefinition, { typed }: Session): void {
  const option = toCommanderOption(definition);
  program.addOption(option);
  program.on(`option:${option.name()}`, (text: string | null | undefined) => {
    typed.set(definition.name, [...typed.get(definition.name) ?? [], text ?? undefined]);
  });
}

function addOutputOption(program: Commander, flags: string, kind: OutputRequest["kind"]): void {
  program.addOption(new Option(flags));
  program.on(`option:${kind}`, () => {
    throw new OutputRequest(kind);
  });
}

async function runAction(cmd: Command, texts: readonly string[], session: Session): Promise<void> {
  if (
    texts.length === 0 && cmd.getCommands(true).length > 0 && !cmd.state.action && session.typed.size === 0
  ) {
    throw new OutputRequest("help");
  }
  const options = readOptions(cmd, session.typed);
  const args = readArguments(cmd, texts);
  session.result = { options, args, literal: [], cmd };
  await cmd.state.action?.call(cmd, options, ...args);
}

function build(cmd: Command, session: Session): Commander {
  const program = new Commander(cmd.getName());
  program.exitOverride().configureOutput({
    writeOut: () => {},
    writeErr: () => {},
    getErrHasColors: () => false,
  });
  program.helpOption(false).helpCommand(false).enablePositionalOptions().allowExcessArguments();
  program.showSuggestionAfterError(false).argument("[texts...]");
  for (const option of allOptions(cmd)) addOption(program, option, session);
  addOutputOption(program, "-h, --help", "help");
  if (!cmd.getParent() && cmd.getVersion() !== undefined) {
    addOutputOption(program, "-V, --version", "version");
  }
  for (const child of cmd.getCommands(true)) {
    program.addCommand(build(child, session));
  }
  program.hook("preSubcommand", (_, sub) => {
    session.current = cmd.getCommand(sub.name(), true) ?? cmd;
  });
  return program.action(async (texts: string[]) => await runAction(cmd, texts, session));
}

function toValidationError(error: CommanderError, cmd: Command): ValidationError {
  const flags = /'([^']*)'/.exec(error.message)?.[1] ?? "";
  if (error.code === "commander.unknownOption") {
    const [name = "", value] = flags.split("=");
    if (value !== undefined && cmd.getOptions(true).some((option) => option.flags.includes(name))) {
      return new ValidationError(`Option "${name}" doesn't take a value, but got "${value}".`, {
        cause: error,
      });
    }
    const known = cmd.getOptions(true).map((option) => toFlag(option.name));
    return new ValidationError(`Unknown option "${name}".${didYouMean("option", name, known)}`, {
      cause: error,
    });
  }
  if (error.code === "commander.optionMissingArgument") {
    const long = flags.split(/[ ,]+/).find((part) => part.startsWith("--")) ?? flags;
    return new ValidationError(`Missing value for option "${long}".`, { cause: error });
  }
  return new ValidationError(error.message.replace(/^error: /, ""), { cause: error });
}

function output(cmd: Command, { kind }: OutputRequest, args: readonly string[]): CommandResult {
  if (kind === "help") cmd.showHelp();
  else if (args.includes("--version")) cmd.showLongVersion();
  else cmd.showVersion();
  cmd.exitAfterOutput();
  return { options: { [kind]: true }, args: [], literal: [], cmd };
}

/** Reads `args` and runs the command they lead to; errors are reported by that command. */
export async function runProgram(cmd: Command, args: readonly string[]): Promise<CommandResult> {
  const session: Session = { typed: new Map(), current: cmd, result: undefined };
  try {
    await build(cmd, session).parseAsync(args, { from: "user" });
    return session.result ?? { options: {}, args: [], literal: [], cmd };
  } catch (error) {
    if (error instanceof OutputRequest) return output(session.current, error, args);
    if (error instanceof CommanderError) session.current.throw(toValidationError(error, session.current));
    session.current.throw(error instanceof Error ? error : new Error(`[non-error-thrown] ${error}`));
  }
}
