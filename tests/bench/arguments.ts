/** Arguments of the bench's parts. */

/** A command line that cannot be meant. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/**
 * The value of a flag that counts something.
 *
 * @throws UsageError
 */
export function count(name: string, value: string): number {
  if (/^[1-9]\d{0,8}$/.test(value)) return Number(value);
  throw new UsageError(`--${name} is "${value}", wanted a whole number from 1 on`);
}
