/** `mor bench compare` between revisions: each measurement is a process, of a checkout of its side's revision. */
import { ValidationError } from "@cliffy/command";
import { type Contender, type Side, SIDES } from "../model/speed_comparison.ts";
import type { WorkSettings } from "../model/timed_model.ts";
import { type ComparedSide, quoted } from "./compare_sides.ts";
import { InterruptedError, ProcessError } from "./errors.ts";
import { type ProcessProfile, profileByProcess } from "./profile_process.ts";
import { addCheckout, CHECKOUT, commitOf, removeCheckout } from "./revision_checkout.ts";

/** Signals that end a comparison, after it has removed its checkouts. */
const SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];

/** Commits of the sides that have a revision. */
export type Commits = Readonly<Record<Side, string | null>>;

/**
 * The commits of both sides' revisions.
 *
 * @throws ValidationError when one is unknown, or when this program may not start others, as the binary may not.
 */
export async function commitsOf(sides: Readonly<Record<Side, ComparedSide>>): Promise<Commits> {
  const { state } = await Deno.permissions.query({ name: "run", command: "deno" });
  if (state !== "granted") {
    throw new ValidationError(
      "Cannot compare revisions: this program may not start git and deno; in a checkout, `deno task mor bench compare` may",
    );
  }
  const commits: Record<Side, string | null> = { base: null, change: null };
  for (const side of SIDES) {
    const { revision } = sides[side].flags;
    if (revision === undefined) continue;
    try {
      commits[side] = await commitOf(revision);
    } catch (error) {
      if (!(error instanceof ValidationError)) throw error;
      throw new ValidationError(`With ${quoted(sides[side])}: ${error.message}`, { cause: error });
    }
  }
  return commits;
}

/** What is compared, and who is told of the adapter. */
export interface ProcessComparison {
  readonly sides: Readonly<Record<Side, ComparedSide>>;
  readonly commits: Commits;
  readonly model: string;
  readonly settings: Readonly<Record<Side, WorkSettings>>;
  /** Called once, with the first measurement. */
  readonly onAdapter: (adapter: ProcessProfile["adapter"]) => Promise<void>;
}

/**
 * Runs `body` with both sides' contenders, and removes the checkouts whatever becomes of it.
 *
 * @throws InterruptedError after Ctrl-C; ProcessError when a process fails, or runs on another adapter than the first.
 */
export async function withProcesses<T>(
  comparison: ProcessComparison,
  body: (contenders: Record<Side, Contender>) => Promise<T>,
): Promise<T> {
  const interrupt = new AbortController();
  const onSignal = (): void => interrupt.abort();
  for (const signal of SIGNALS) Deno.addSignalListener(signal, onSignal);
  const checkouts: string[] = [];
  try {
    const folders: Record<Side, string> = { base: CHECKOUT, change: CHECKOUT };
    for (const side of SIDES) {
      const commit = comparison.commits[side];
      if (commit === null) continue;
      interrupt.signal.throwIfAborted();
      checkouts.push(folders[side] = await addCheckout(commit));
    }
    return await body(contendersOf(comparison, { folders, signal: interrupt.signal }));
  } catch (error) {
    // Whatever failed because of the signal is not the news.
    throw interrupt.signal.aborted ? new InterruptedError("interrupted; nothing is left behind") : error;
  } finally {
    for (const folder of checkouts) await removeCheckout(folder);
    for (const signal of SIGNALS) Deno.removeSignalListener(signal, onSignal);
  }
}

function contendersOf(
  { sides, model, settings, onAdapter }: ProcessComparison,
  { folders, signal }: { folders: Readonly<Record<Side, string>>; signal: AbortSignal },
): Record<Side, Contender> {
  let adapter: string | null = null;
  const contender = (side: Side): Contender => async () => {
    signal.throwIfAborted();
    const request = { model, dtype: sides[side].flags.dtype, ...settings[side] };
    const profile = await profileByProcess(folders[side], { request, signal }).catch((cause) => {
      throw new ProcessError(`Cannot measure ${quoted(sides[side])}: ${cause.message}`, { cause });
    });
    const { description } = profile.adapter;
    if (adapter === null) await onAdapter(profile.adapter);
    else if (adapter !== description) {
      throw new ProcessError(
        `Cannot compare: a process ran on "${adapter}", a later one on "${description}"`,
      );
    }
    adapter = description;
    return profile.times;
  };
  return { base: contender("base"), change: contender("change") };
}
