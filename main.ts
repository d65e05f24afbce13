/** The command line: parses, runs one command, and turns whatever ended it into an exit code. */
import { explainError } from "./cli/errors.ts";
import { rootCommand } from "./cli/root.ts";
import { writeError } from "./cli/terminal.ts";

if (import.meta.main) {
  try {
    // A binary made by `deno compile` has one set of permissions for all commands: only `pull` keeps the network.
    if (Deno.args.find((argument) => !argument.startsWith("-")) !== "pull") {
      await Deno.permissions.revoke({ name: "net" });
    }
    await rootCommand().parse(Deno.args);
  } catch (error) {
    const { code, line, isExpected } = explainError(error);
    const isVerbose = Deno.args.some((argument) => argument === "--verbose" || argument === "-v");
    writeError(`mor: ${line}`);
    if (isVerbose && error instanceof Error) writeError(error.stack ?? "");
    else if (!isExpected) writeError("mor: run again with --verbose for the stack");
    Deno.exit(code);
  }
  // Signal listeners and an open device would keep the process alive.
  Deno.exit(0);
}
