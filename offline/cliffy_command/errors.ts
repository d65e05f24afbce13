/** Errors of the stand-in for `@cliffy/command`. */
import type { Command } from "./command.ts";

/** Base of all errors of a command. */
export class CommandError extends Error {
  override name = "CommandError";
}

/** Settings of a {@linkcode ValidationError}. */
export interface ValidationErrorOptions extends ErrorOptions {
  exitCode?: number;
}

/** Wrong usage: shown with the help, exit code 2 unless told otherwise. */
export class ValidationError extends CommandError {
  override name = "ValidationError";
  readonly exitCode: number;
  /** The command that was used wrongly, once it is known. */
  cmd?: Command;

  constructor(message: string, { exitCode = 2, ...options }: ValidationErrorOptions = {}) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitute, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}

/** Names the candidate closest to `name`, as a sentence to add to an error; empty if there is none. */
export function didYouMean(kind: string, name: string, candidates: readonly string[]): string {
  const [closest] = [...candidates].sort((a, b) => distance(name, a) - distance(name, b));
  return closest === undefined ? "" : ` Did you mean ${kind} "${closest}"?`;
}
