/** From errors to exit codes and one line. */
import { ValidationError } from "@cliffy/command";
import { GpuError, GpuUnavailableError, MemoryError } from "../gpu/errors.ts";
import { ConfigError } from "../model/config.ts";
import { DataError } from "../model/text/documents.ts";
import { PullError } from "../model/exchange/pull_error.ts";
import { CheckpointError } from "../model/files/safetensors.ts";
import { TrainingError } from "../model/train.ts";

/** What the program tells the shell. */
export const EXIT = { done: 0, failed: 1, usage: 2, noAdapter: 3, noMemory: 4, interrupted: 130 } as const;

/** Thrown after an interrupted command has saved what it could. */
export class InterruptedError extends Error {
  override readonly name = "InterruptedError";
}

/** A file of a run that cannot be read or written, for a reason that lies outside the program. */
export class RunFileError extends Error {
  override readonly name = "RunFileError";
}

/** A program that was started for a command and failed, or that is not there. */
export class ProcessError extends Error {
  override readonly name = "ProcessError";
}

/** Errors whose message is written for the user. */
const EXPECTED = [
  ConfigError,
  DataError,
  CheckpointError,
  PullError,
  TrainingError,
  GpuError,
  RangeError,
  RunFileError,
  ProcessError,
] as const;

/** The exit code and the line for an error that ended a command. */
export function explainError(error: unknown): { code: number; line: string; isExpected: boolean } {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof ValidationError) return { code: error.exitCode, line: message, isExpected: true };
  if (error instanceof GpuUnavailableError) return { code: EXIT.noAdapter, line: message, isExpected: true };
  if (isOutOfMemory(error)) return { code: EXIT.noMemory, line: message, isExpected: true };
  if (error instanceof InterruptedError) return { code: EXIT.interrupted, line: message, isExpected: true };
  if (isFileError(error)) {
    return { code: EXIT.failed, line: `Cannot use a file: ${message}`, isExpected: true };
  }
  const isExpected = EXPECTED.some((kind) => error instanceof kind);
  return { code: EXIT.failed, line: isExpected ? message : `Unexpected error: ${message}`, isExpected };
}

/** Refused beforehand, or by the driver when it came to it. */
function isOutOfMemory(error: unknown): boolean {
  return error instanceof MemoryError || error instanceof GpuError && error.kind === "out-of-memory";
}

/** A message, often of a driver or a system, with more behind it in the same line. */
export function withMore(message: string, more: string): string {
  return `${message.replace(/[.;:\s]+$/, "")}; ${more}`;
}

/** Errors of the operating system: disk full, no permission, is a directory... */
export function isFileError(error: unknown): error is Error {
  return error instanceof Error && (Object.values(Deno.errors).some((kind) => error instanceof kind) ||
    "code" in error && typeof error.code === "string" && /^E[A-Z]+$/.test(error.code));
}
