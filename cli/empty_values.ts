/** Arguments without a letter in them. */
import { ValidationError } from "@cliffy/command";

/**
 * Refuses empty arguments and values: Cliffy 1.2.1 takes `--stop ""` for no flag at all, without a word.
 *
 * @throws ValidationError
 */
export function refuseEmptyValues(args: readonly string[]): void {
  for (const [i, arg] of args.entries()) {
    if (arg === "--") return;
    const flag = /^(--?[^=]+)=$/.exec(arg)?.[1] ?? (arg === "" ? args[i - 1] ?? "" : null);
    if (flag === null) continue;
    const what = flag.startsWith("-") ? flag : "An argument";
    throw new ValidationError(`${what} is empty, wanted a value`);
  }
}
