/** Names the program and gathers its subcommands. */
import { Command } from "@cliffy/command";
import { CompletionsCommand } from "@cliffy/command/completions";
import { HelpCommand } from "@cliffy/command/help";
import { benchCommand } from "./bench.ts";
import { demoCommand } from "./demo.ts";
import { doctorCommand } from "./doctor.ts";
import { evalCommand } from "./eval.ts";
import { exportCommand } from "./export.ts";
import { forwardCommand } from "./forward.ts";
import { generateCommand } from "./generate.ts";
import { formatHelp } from "./help.ts";
import { importCommand } from "./import.ts";
import { inspectCommand } from "./inspect.ts";
import { profileCommand } from "./profile.ts";
import { pullCommand } from "./pull.ts";
import { quantizeCommand } from "./quantize.ts";
import { openTerminal } from "./terminal.ts";
import { tokenizerCommand } from "./tokenizer.ts";
import { trainCommand } from "./train.ts";
import { VERSION } from "./version.ts";

/** The whole command line. Errors are thrown, not printed. */
// deno-lint-ignore no-explicit-any -- Cliffy's type of a command spells out every flag of every subcommand.
export function rootCommand(): Command<any> {
  const command = new Command()
    .name("mor")
    .version(VERSION)
    .description("Train and run Mixture-of-Recursions language models on any GPU.")
    .meta("Exit codes", "0 done, 1 failed, 2 wrong usage, 3 no adapter, 4 not enough memory, 130 interrupted")
    .example("A model of your own", "mor train --model tiny --data book.txt --out my-model")
    .example("What it writes", 'mor generate my-model -p "It was"')
    .example("What the program is made of", "mor --version --verbose")
    .globalOption("-q, --quiet", "Say nothing but results and errors.")
    .globalOption("-v, --verbose", "Show the stack of an error.")
    .help((shown: Command) => formatHelp(shown, openTerminal()))
    .throwErrors()
    .action(() => command.showHelp());
  return command
    .command("train", trainCommand())
    .command("generate", generateCommand())
    .command("eval", evalCommand())
    .command("quantize", quantizeCommand())
    .command("forward", forwardCommand())
    .command("inspect", inspectCommand())
    .command("profile", profileCommand())
    .command("bench", benchCommand())
    .command("pull", pullCommand())
    .command("import", importCommand())
    .command("export", exportCommand())
    .command("tokenizer", tokenizerCommand())
    .command("doctor", doctorCommand())
    .command("demo", demoCommand())
    .command("completions", completionsCommand())
    .command("help", helpCommand())
    .reset();
}

/** Cliffy's command, with words and examples of ours. */
function completionsCommand(): CompletionsCommand {
  return new CompletionsCommand()
    .description(
      "Print a script that completes commands and flags in a shell; the shell reads it when it starts.",
    )
    .example("In ~/.bashrc", "source <(mor completions bash)")
    .example("In ~/.zshrc, after compinit", "source <(mor completions zsh)")
    .example("In ~/.config/fish/config.fish", "mor completions fish | source");
}

function helpCommand(): HelpCommand {
  return new HelpCommand()
    .description("Show the help of the program or of a command.")
    .example("What a training run can be told", "mor help train");
}
