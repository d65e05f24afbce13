/**
 * Writing to the user: results on stdout, the rest on stderr, colours only where they are wanted. No control character
 * of a text reaches a terminal; into a pipe or a file results go as they are.
 */
import { showControls } from "./control_characters.ts";

/** What the shared flags and the streams allow. */
export interface Terminal {
  /** Results; in the colour of a recursion depth, if one is given and colours are wanted. */
  readonly out: (text: string, depth?: number) => void;
  /** Whether somebody still reads the results: without, a command that does nothing else may end. */
  readonly hasReader: () => boolean;
  /** Progress, notes and warnings; nothing with --quiet. */
  readonly note: (text: string) => void;
  /** Whether results may carry ANSI colours. */
  readonly hasColor: boolean;
  /** Whether stderr can redraw a line. */
  readonly isInteractive: boolean;
  /** Columns of the terminal, 80 when there is none. */
  readonly columns: number;
}

function writeAll(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let written = 0; written < bytes.length;) written += stream.writeSync(bytes.subarray(written));
}

/** Whether somebody still reads stdout. */
let hasReader = true;

/** Whoever stops reading the results (`mor ... | head`) has enough of them: that is no failure, and other work goes on. */
function writeResult(text: string): void {
  if (!hasReader) return;
  try {
    writeAll(Deno.stdout, text);
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
    hasReader = false;
  }
}

/**
 * @param quiet Say nothing on stderr but errors.
 * @param raw Let control characters of results through to a terminal.
 */
export function openTerminal(
  { quiet = false, raw = false }: { quiet?: boolean | undefined; raw?: boolean | undefined } = {},
): Terminal {
  const isTerminal = Deno.stdout.isTerminal();
  const hasColor = isTerminal && !Deno.env.get("NO_COLOR") && Deno.env.get("TERM") !== "dumb";
  const shown = (text: string): string => isTerminal && !raw ? showControls(text) : text;
  return {
    out: (text, depth) => {
      const isColored = hasColor && depth !== undefined && text !== "";
      writeResult(isColored ? colorDepth(shown(text), depth) : shown(text));
    },
    hasReader: () => hasReader,
    note: (text) => {
      if (!quiet) writeError(text);
    },
    hasColor,
    isInteractive: !quiet && Deno.stderr.isTerminal(),
    columns: terminalColumns(),
  };
}

/** Lines for the user on stderr, with --quiet too. When nobody reads them any more, the work goes on all the same. */
export function writeError(text: string): void {
  try {
    writeAll(Deno.stderr, showControls(text) + "\n");
  } catch (error) {
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

function terminalColumns(): number {
  try {
    // Some terminals do not know how wide they are.
    return Deno.consoleSize().columns || 80;
  } catch {
    return 80;
  }
}

/** Foreground colours of depth 0, 1, 2, ...: grey, blue, green, yellow, red; deeper ones magenta. */
const DEPTH_COLORS = [90, 34, 32, 33, 31, 35];

/** Text in the colour of a recursion depth. */
function colorDepth(text: string, depth: number): string {
  return `\x1b[${DEPTH_COLORS[Math.min(depth, DEPTH_COLORS.length - 1)]}m${text}\x1b[0m`;
}
