/** Arguments that Cliffy would leave out without a word. */
import { ValidationError } from "@cliffy/command";

/**
 * Refuses empty arguments and values, and what stands behind `--`: Cliffy 1.2.1 takes `--stop ""` for no flag at all,
 * and keeps the rest of a line after `--` for programs that ask for it.
 *
 * @throws ValidationError
 */
export function checkArguments(args: readonly string[]): void {
  for (const [i, arg] of args.entries()) {
    if (arg === "--") throw new ValidationError('"--" means nothing here; leave it out');
    const flag = /^(--?[^=]+)=$/.exec(arg)?.[1] ?? (arg === "" ? args[i - 1] ?? "" : null);
    if (flag === null) continue;
    const what = flag.startsWith("-") ? flag : "An argument";
    throw new ValidationError(`${what} is empty, wanted a value`);
  }
}
