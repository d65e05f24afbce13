import { StopStrings } from "./stop_strings.ts";
import type { TokenDecoder } from "./tokenizer.ts";

/** A text that grows token by token and ends before any of some strings. */
export class StoppedText {
  readonly #decoder: TokenDecoder;
  readonly #stops: StopStrings;
  #text = "";

  constructor(decoder: TokenDecoder, { stops }: { stops: readonly string[] }) {
    this.#decoder = decoder;
    this.#stops = new StopStrings(stops);
  }

  /** All of it that is safe to show. */
  get text(): string {
    return this.#text;
  }

  /** Whether it ended before one of the strings; tokens from there on are not looked at. */
  get isStopped(): boolean {
    return this.#stops.isFound;
  }

  /** Adds a token. Returns what is safe to show now. */
  push(id: number): string {
    return this.isStopped ? "" : this.#grow(this.#stops.push(this.#decoder.push(id)));
  }

  /** After the last token: returns what was held back, characters that were cut off among it. */
  finish(): string {
    if (this.isStopped) return "";
    const rest = this.#stops.push(this.#decoder.flush());
    return this.#grow(this.isStopped ? rest : rest + this.#stops.flush());
  }

  #grow(piece: string): string {
    this.#text += piece;
    return piece;
  }
}
