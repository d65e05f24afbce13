/** `mor profile` of a checkout as a process of its own. */
import { z } from "zod";
import type { AdapterInfo } from "../gpu/adapter.ts";
import type { WorkTimes } from "../model/speed_comparison.ts";
import type { WorkSettings } from "../model/timed_model.ts";
import { ProcessError } from "./errors.ts";

/** Times that a process measures each kind of work; it gives their median. */
const REPEATS = 3;

const amount = z.number().positive();
const work = z.object({ tokens: amount, wall_milliseconds: amount }).transform(
  ({ tokens, wall_milliseconds: milliseconds }) => ({ tokens, milliseconds }),
);

/** What of `mor profile --json` is read; other fields have come and gone from revision to revision. */
const profileSchema = z.object({
  adapter: z.string(),
  is_software: z.boolean(),
  prefill: work,
  decode: work,
  train: work.optional(),
});

/** Which model to profile, and how. */
export interface ProfileRequest extends WorkSettings {
  readonly model: string;
  /** Format of the weights; the program's own choice unless given. */
  readonly dtype: string | undefined;
}

/** What a process measured, and on what. */
export interface ProcessProfile {
  readonly adapter: Pick<AdapterInfo, "description" | "isSoftware">;
  readonly times: WorkTimes;
}

/**
 * Profiles with the program of a checkout: by its own task, which finds the packages of that revision and gives it the
 * permissions that it needs.
 *
 * @param checkout Its folder.
 * @param signal Ends the process.
 * @throws ProcessError with the last error line of a process that fails.
 */
export async function profileByProcess(
  checkout: string,
  { request, signal }: { request: ProfileRequest; signal: AbortSignal },
): Promise<ProcessProfile> {
  const { code, stdout, stderr } = await new Deno.Command("deno", {
    args: ["task", "-q", "mor", "profile", request.model, ...flagsOf(request)],
    cwd: checkout,
    // Paths are meant from where the user stands.
    env: { INIT_CWD: Deno.cwd(), NO_COLOR: "1" },
    stdin: "null",
    signal,
  }).output();
  const decoder = new TextDecoder();
  if (code !== 0) throw new ProcessError(reasonOf(code, decoder.decode(stderr)));
  return readProfile(decoder.decode(stdout));
}

function flagsOf(
  { promptTokens, steps, shape, recompute, activationDtype, seed, dtype }: ProfileRequest,
): string[] {
  const training = shape && {
    "--batch-size": shape.batchSize,
    "--sequence-length": shape.sequenceLength,
    // Older revisions know no such flag, and train so.
    "--activations": activationDtype === "f32" ? undefined : activationDtype,
  };
  const values = { "-p": promptTokens, "-n": steps, "--seed": seed, "--dtype": dtype, ...training };
  const given = Object.entries({ ...values, "--repeats": REPEATS }).filter(([, value]) =>
    value !== undefined
  );
  const switches = [...(shape ? ["--train"] : []), ...(recompute ? ["--recompute"] : [])];
  return ["--quiet", "--json", ...given.flat().map(String), ...switches];
}

function readProfile(text: string): ProcessProfile {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new ProcessError(`its result is no JSON, but begins with ${JSON.stringify(text.slice(0, 40))}`, {
      cause,
    });
  }
  const { success, data, error } = profileSchema.safeParse(json);
  if (!success) {
    const [issue] = error.issues;
    throw new ProcessError(
      `its result has no time that can be used: ${issue!.path.join(".")}: ${issue!.message}`,
    );
  }
  const { adapter: description, is_software: isSoftware, train, ...times } = data;
  return { adapter: { description, isSoftware }, times: { ...times, ...(train && { train }) } };
}

/** Exit codes from here on stand for a signal, whose number is added to this. */
const SIGNALLED = 128;

/** Why a process failed: the last line that says what went wrong, without the program's name; else how it ended. */
function reasonOf(code: number, stderr: string): string {
  const lines = stderr.split("\n").map((line) => line.trim()).filter((line) => line !== "");
  const told = lines.findLast((line) =>
    /^(mor|error): /.test(line) && !/run again with --verbose/.test(line)
  );
  if (told !== undefined) return told.replace(/^mor: /, "");
  // What a killed process wrote last is not why it ended.
  if (code > SIGNALLED) return `its process was ended by signal ${code - SIGNALLED}`;
  return lines.at(-1) ?? `it ended with exit code ${code}`;
}
