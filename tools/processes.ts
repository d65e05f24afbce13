/** Starting other programs so that their exit codes and signals go through. */

/** Says one line on stderr. */
export function say(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}

/** How a program is started: its folder, variables added to the inherited ones, what becomes of its stdout. */
export interface ProcessSettings {
  readonly cwd?: string | undefined;
  readonly env?: Readonly<Record<string, string>>;
  /** Called with each piece of stdout instead of passing it on. */
  readonly onOutput?: (piece: Uint8Array) => void;
}

/** What a silent program left behind. */
export interface SilentResult {
  readonly code: number;
  readonly errors: string;
}

function exitCode({ code, signal }: Deno.CommandStatus): number {
  const numbers: Partial<Record<Deno.Signal, number>> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };
  return signal === null ? code : 128 + (numbers[signal] ?? 0);
}

/**
 * Keeps this process alive through signals meant for the child, and hands on the ones that reach only this process:
 * a terminal sends Ctrl-C to both by itself.
 */
function relaySignals(child: Deno.ChildProcess): () => void {
  const fromTerminal = Deno.stdin.isTerminal();
  const signals: Deno.Signal[] = Deno.build.os === "windows" ? ["SIGINT"] : ["SIGINT", "SIGTERM", "SIGHUP"];
  const listeners = signals.map((signal) => {
    const listener = (): void => {
      if (signal === "SIGINT" && fromTerminal) return;
      try {
        child.kill(signal);
      } catch {
        // It has ended by itself.
      }
    };
    Deno.addSignalListener(signal, listener);
    return (): void => Deno.removeSignalListener(signal, listener);
  });
  return () => listeners.forEach((remove) => remove());
}

/** Runs a program on this terminal and returns its exit code; 128 + n if signal n ended it. */
export async function runProgram(
  [program, ...args]: readonly [string, ...string[]],
  { cwd, env = {}, onOutput }: ProcessSettings = {},
): Promise<number> {
  const child = new Deno.Command(program, {
    args,
    env,
    ...(cwd === undefined ? {} : { cwd }),
    stdin: "inherit",
    stdout: onOutput ? "piped" : "inherit",
    stderr: "inherit",
  }).spawn();
  const stop = relaySignals(child);
  if (onOutput) { for await (const piece of child.stdout) onOutput(piece); }
  const status = await child.status;
  stop();
  return exitCode(status);
}

/** Runs a program without showing it; it is ended once it has said nothing for `silenceMs` milliseconds. */
export async function runSilently(
  [program, ...args]: readonly [string, ...string[]],
  { silenceMs, env = {} }: { silenceMs: number; env?: Readonly<Record<string, string>> },
): Promise<SilentResult> {
  const child = new Deno.Command(program, { args, env, stdin: "null", stdout: "null", stderr: "piped" })
    .spawn();
  const stop = relaySignals(child);
  const decoder = new TextDecoder();
  let timer = setTimeout(() => child.kill("SIGKILL"), silenceMs);
  let errors = "";
  for await (const piece of child.stderr) {
    errors += decoder.decode(piece, { stream: true });
    clearTimeout(timer);
    timer = setTimeout(() => child.kill("SIGKILL"), silenceMs);
  }
  const status = await child.status;
  clearTimeout(timer);
  stop();
  return { code: exitCode(status), errors };
}

/** What a short program writes to stdout, without the blanks at its ends; null if it fails or is not there. */
export async function readOutput([program, ...args]: readonly [string, ...string[]]): Promise<string | null> {
  try {
    const command = new Deno.Command(program, { args, stdin: "null", stdout: "piped", stderr: "null" });
    const { success, stdout } = await command.output();
    return success ? new TextDecoder().decode(stdout).trim() : null;
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    return null;
  }
}
