/** Stand-in for `@cliffy/command/completions`: scripts that know every command and flag, and ask the program nothing. */
import { Command } from "./command.ts";
import { type CommandWords, completionWords } from "./completion_words.ts";
import { bashScript } from "./completions_bash.ts";
import { fishScript } from "./completions_fish.ts";
import { zshScript } from "./completions_zsh.ts";

type Script = (commands: readonly CommandWords[], name: string) => string;

const SHELLS: Readonly<Record<string, Script>> = { bash: bashScript, fish: fishScript, zsh: zshScript };

function shellCommand(shell: string, { script, of }: { script: Script; of: Command | undefined }): Command {
  const command = new Command();
  return command.description(`Generate shell completions for ${shell}.`)
    .noGlobals()
    .option("-n, --name <command-name:string>", "The name of the main command.")
    .action(({ name }: { name?: string }) => {
      const main = of ?? command.getMainCommand();
      const typed = name ?? main.getName();
      // deno-lint-ignore no-console -- the package prints so
      console.log(script(completionWords(main, typed), typed));
    });
}

/** `completions bash|fish|zsh` prints the script of a shell. */
export class CompletionsCommand extends Command {
  constructor(cmd?: Command) {
    super();
    this.description("Generate shell completions.").noGlobals().action(() => this.showHelp());
    for (const [shell, script] of Object.entries(SHELLS)) {
      this.command(shell, shellCommand(shell, { script, of: cmd })).reset();
    }
  }
}
