/** Stand-in for `@cliffy/command/help`. */
import { Command } from "./command.ts";
import { didYouMean, ValidationError } from "./errors.ts";
import { CommandType } from "./types.ts";

/** `help [command]`: shows the help of the program or of one of its commands. */
export class HelpCommand extends Command {
  constructor(cmd?: Command) {
    super();
    this.description("Show this help or the help of a sub-command.")
      .type("command", new CommandType())
      .arguments("[command:command]")
      .noGlobals()
      .action((_options: unknown, name?: string): void => {
        const main = cmd ?? this.getMainCommand();
        const shown = name === undefined ? main : main.getCommand(name);
        if (!shown) {
          const names = main.getCommands().map((command) => command.getName());
          throw new ValidationError(`Unknown command "${name}".${didYouMean("command", name ?? "", names)}`);
        }
        shown.showHelp();
        this.exitAfterOutput();
      });
  }
}
