/** Progress on stderr: a redrawn line on a terminal, a line now and then elsewhere. */
import { ProgressBar } from "@std/cli/unstable-progress-bar";
import type { Terminal } from "./terminal.ts";

/** Milliseconds between lines where nothing can be redrawn. */
const PLAIN_INTERVAL = 10_000;

/** Shows how far a piece of work has come. */
export interface Progress {
  /** Work done, and a few words beside it. */
  update(value: number, status: string): void;
  /** Writes a line that stays. */
  note(text: string): Promise<void>;
  stop(): Promise<void>;
}

export function openProgress(terminal: Terminal, { max, value }: { max: number; value: number }): Progress {
  return terminal.isInteractive ? barProgress(terminal, { max, value }) : plainProgress(terminal, { max });
}

function barProgress(terminal: Terminal, { max, value }: { max: number; value: number }): Progress {
  let status = "";
  const barLength = Math.max(8, Math.min(30, terminal.columns - 60));
  const open = (from: number): ProgressBar =>
    new ProgressBar({
      max,
      value: from,
      barLength,
      interval: 200,
      clear: true,
      formatter: ({ progressBar, value }) =>
        `${value}/${max} [${progressBar}] ${status}`.slice(0, terminal.columns - 1),
    });
  let bar = open(value);
  return {
    update(next, text): void {
      status = text;
      bar.value = next;
    },
    async note(text): Promise<void> {
      const at = bar.value;
      await bar.stop();
      terminal.note(text);
      bar = open(at);
    },
    stop: () => bar.stop(),
  };
}

function plainProgress(terminal: Terminal, { max }: { max: number }): Progress {
  let last = -Infinity;
  return {
    update(next, text): void {
      const now = performance.now();
      if (now - last < PLAIN_INTERVAL && next < max) return;
      last = now;
      terminal.note(`${next}/${max} ${text}`);
    },
    note: (text) => Promise.resolve(terminal.note(text)),
    stop: () => Promise.resolve(),
  };
}

/** `1:05`, `2:03:04`. */
export function formatDuration(seconds: number): string {
  const whole = Math.round(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] === 0 ? parts.slice(1) : parts;
  return shown.map((part, i) => i === 0 ? String(part) : String(part).padStart(2, "0")).join(":");
}
