/** Ending a stream of text before any of some strings, without printing part of one. */
export class StopStrings {
  readonly #stops: readonly string[];
  #held = "";
  #isFound = false;

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== "");
  }

  get isFound(): boolean {
    return this.#isFound;
  }

  /** Text that is safe to print now; what may be the beginning of a stop string is held back. */
  push(piece: string): string {
    this.#held += piece;
    const places = this.#stops.map((stop) => this.#held.indexOf(stop)).filter((place) => place >= 0);
    if (places.length > 0) {
      this.#isFound = true;
      return this.#take(Math.min(...places));
    }
    return this.#take(this.#held.length - this.#possibleBeginning());
  }

  /** What was held back when the stream ended. */
  flush(): string {
    return this.#take(this.#held.length);
  }

  #take(length: number): string {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return text;
  }

  /** Length of the longest end of the held text with which a stop string begins. */
  #possibleBeginning(): number {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.#held.length); length > 0; length--) {
      if (this.#stops.some((stop) => stop.startsWith(this.#held.slice(-length)))) return length;
    }
    return 0;
  }
}
