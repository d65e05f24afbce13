/** Stand-in for `@cliffy/command/completions`, which it leaves out. */
import { Command } from "./command.ts";
import { ValidationError } from "./errors.ts";

function shellCommand(shell: string): Command {
  return new Command().description(`Generate shell completions for ${shell}.`).action(() => {
    throw new ValidationError(
      `Completions for ${shell} need the package @cliffy/command, which could not be fetched here; ` +
        "run `deno task setup` with network access and try again",
      { exitCode: 1 },
    );
  });
}

/** `completions bash|fish|zsh`: each answers that it needs the full package. */
export class CompletionsCommand extends Command {
  constructor(_cmd?: Command) {
    super();
    this.description("Generate shell completions.").action(() => this.showHelp());
    for (const shell of ["bash", "fish", "zsh"]) this.command(shell, shellCommand(shell)).reset();
  }
}
