/** The command line: parses, runs one command, and turns whatever ended it into an exit code. */
import { checkArguments } from "./cli/argument_checks.ts";
import { explainError } from "./cli/errors.ts";
import { dropPermissions } from "./cli/permissions.ts";
import { rootCommand } from "./cli/root.ts";
import { openTerminal, writeError } from "./cli/terminal.ts";
import { asksForVersionReport, type Build, versionReport } from "./cli/version.ts";

/**
 * Runs the command that the arguments name, and ends the process.
 *
 * @param build How the binary was made; null in a checkout.
 */
export async function main(args: readonly string[], build: Build | null = null): Promise<never> {
  try {
    await dropPermissions(args);
    checkArguments(args);
    if (asksForVersionReport(args)) openTerminal().out(versionReport(build));
    else await rootCommand().parse([...args]);
  } catch (error) {
    const { code, line, isExpected } = explainError(error);
    const isVerbose = args.some((arg) => arg === "--verbose" || arg === "-v");
    writeError(`mor: ${line}`);
    if (isVerbose && error instanceof Error) writeError(error.stack ?? "");
    else if (!isExpected) writeError("mor: run again with --verbose for the stack");
    Deno.exit(code);
  }
  // Signal listeners and an open device would keep the process alive.
  Deno.exit(0);
}

if (import.meta.main) await main(Deno.args);
