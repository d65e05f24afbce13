/** Stand-in for `@std/cli/unstable-progress-bar`: redraws one line at an interval. */

/** What a formatter is given at each redraw; times are in milliseconds. */
export interface ProgressBarFormatter {
  styledTime: string;
  styledData: string;
  progressBar: string;
  time: number;
  previousTime: number;
  value: number;
  previousValue: number;
  max: number;
}

/** Settings of a bar; `max` is the value at which it is full. */
export interface ProgressBarOptions {
  writable?: WritableStream<Uint8Array>;
  value?: number;
  max: number;
  barLength?: number;
  fillChar?: string;
  emptyChar?: string;
  clear?: boolean;
  formatter?: (formatter: ProgressBarFormatter) => string;
  keepOpen?: boolean;
  interval?: number;
}

const CLEAR_LINE = "\r\x1b[K";
const UNITS = ["KiB", "MiB", "GiB", "TiB"];

function styleData(value: number, max: number): string {
  const power = Math.max(1, Math.min(UNITS.length, Math.floor(Math.log2(Math.max(max, 1)) / 10)));
  const unit = 2 ** (10 * power);
  return `${(value / unit).toFixed(2)}/${(max / unit).toFixed(2)} ${UNITS[power - 1]}`;
}

function styleTime(time: number): string {
  const seconds = Math.floor(time / 1000);
  return [Math.floor(seconds / 60), seconds % 60].map((part) => String(part).padStart(2, "0")).join(":");
}

function defaultFormatter(state: ProgressBarFormatter): string {
  return `[${state.styledTime}] [${state.progressBar}] [${state.styledData}]`;
}

/** A progress line; set `value` as work is done, and `stop` at the end. */
export class ProgressBar {
  value: number;
  max: number;
  readonly #options: ProgressBarOptions;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #encoder = new TextEncoder();
  readonly #start = performance.now();
  readonly #timer: ReturnType<typeof setInterval>;
  #previousTime = 0;
  #previousValue: number;

  constructor(options: ProgressBarOptions) {
    this.value = options.value ?? 0;
    this.max = options.max;
    this.#options = options;
    this.#previousValue = this.value;
    this.#writer = (options.writable ?? Deno.stderr.writable).getWriter();
    this.#timer = setInterval(() => this.#draw(), options.interval ?? 1000);
    this.#draw();
  }

  /** Draws the last state (or removes the line, with `clear`) and lets go of the stream. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    if (this.#options.clear) {
      await this.#write(CLEAR_LINE);
    } else {
      await this.#draw();
      await this.#write("\n");
    }
    if (this.#options.keepOpen ?? true) this.#writer.releaseLock();
    else await this.#writer.close().catch(() => {});
  }

  async #draw(): Promise<void> {
    const { barLength = 50, fillChar = "#", emptyChar = "-", formatter = defaultFormatter } = this.#options;
    const time = performance.now() - this.#start;
    const filled = Math.trunc(Math.min(Math.max(this.value / this.max, 0), 1) * barLength);
    const line = formatter({
      styledTime: styleTime(time),
      styledData: styleData(this.value, this.max),
      progressBar: fillChar.repeat(filled) + emptyChar.repeat(barLength - filled),
      time,
      previousTime: this.#previousTime,
      value: this.value,
      previousValue: this.#previousValue,
      max: this.max,
    });
    this.#previousTime = time;
    this.#previousValue = this.value;
    await this.#write(CLEAR_LINE + line);
  }

  async #write(text: string): Promise<void> {
    // A closed stream ends the drawing, never the work it reports on.
    await this.#writer.write(this.#encoder.encode(text)).catch(() => clearInterval(this.#timer));
  }
}
