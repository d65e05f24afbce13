/** What the fuzzer needs to know of a parser, and how an input is tried. */
import { assert, assertLess, assertMatch } from "@std/assert";
import { ValidationError } from "@cliffy/command";
import { MemoryError } from "../../gpu/errors.ts";
import { RunFileError } from "../../cli/errors.ts";
import { ConfigError } from "../../model/config.ts";
import { PullError } from "../../model/exchange/pull_error.ts";
import { CheckpointError } from "../../model/files/safetensors.ts";
import { DataError } from "../../model/text/documents.ts";
import { isolateBytes } from "../support/memory.ts";

/** What a parser is fed with. */
export interface FuzzInput {
  /** Of the file that it stands in; may begin with the name of a model. */
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** A parser with inputs for it. */
export interface FuzzKind {
  /** The input of a seed, the same each time. */
  make(seed: number): FuzzInput;
  /**
   * Reads an input as the program does; whether it was accepted. Rejects for what must not be: another error, or a
   * meaning that the input does not have.
   *
   * @param folder An empty folder for it.
   */
  check(input: FuzzInput, folder: string): Promise<boolean>;
  /** Time that an input may take, if it is not `MAX_MS`. */
  readonly maxMs?: number;
  /** Ends what the inputs need. */
  close?(): Promise<void>;
}

/** Time for an input of a few KB. */
const MAX_MS = 2000;

/** Memory of the isolate. */
const MAX_BYTES = 2 ** 30;

/** How an input was met. */
export interface Trial {
  readonly isAccepted: boolean;
  readonly ms: number;
  /** In use afterwards, garbage included. */
  readonly bytes: number;
}

/** Tries an input in a folder under `root`; rejects for a finding. */
export async function tryInput(
  kind: FuzzKind,
  { input, root }: { input: FuzzInput; root: string },
): Promise<Trial> {
  async function attempt(): Promise<Trial> {
    const folder = await Deno.makeTempDir({ dir: root });
    const start = performance.now();
    try {
      const isAccepted = await kind.check(input, folder);
      return { isAccepted, ms: performance.now() - start, bytes: isolateBytes() };
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  }
  const maxMs = kind.maxMs ?? MAX_MS;
  let trial = await attempt();
  // Something else may have kept the machine busy: what is slow is slow twice.
  if (trial.ms > maxMs) trial = await attempt();
  assertLess(trial.ms, maxMs, `it takes ${trial.ms.toFixed(0)} ms`);
  assertLess(trial.bytes, MAX_BYTES, `it takes ${trial.bytes} bytes of memory`);
  return trial;
}

/** Errors that say what is wrong with an input. */
const REFUSALS = [
  ...[CheckpointError, ConfigError, DataError, PullError, RunFileError, MemoryError, ValidationError],
];

/** Whether work ends; false if it refuses its input in one line that has one of the names. */
export async function isDone(work: () => unknown, { names }: { names: readonly string[] }): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (!REFUSALS.some((kind) => error instanceof kind)) throw error;
    const { message } = error as Error;
    assertMatch(message, /^\P{Cc}{10,1300}$/u, "the refusal is not one line");
    assert(names.some((name) => message.includes(name)), `no file is named by: ${message}`);
    return false;
  }
}
