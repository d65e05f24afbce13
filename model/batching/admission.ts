/** Which texts may begin: as many as there are pages for at the time when all in slots are expected to need most. */
import { expectedPages, type GrowingText, mostPages, peakPages } from "./page_demand.ts";
import type { PageStore } from "./page_store.ts";
import type { Batch } from "./batch_tick.ts";

/** Texts that count as having drawn all their tokens, before the first have ended. */
const CAUTION = 8;

/** A text in a slot or about to be put into one, in tokens. */
export interface TextProgress {
  readonly prompt: number;
  /** Most to draw, and those drawn. */
  readonly count: number;
  readonly drawn: number;
  /** Known to be drawn, since they were before. */
  readonly least: number;
}

/** Expects of texts what those before them did. */
export class Admission {
  readonly #model: Pick<Batch, "config" | "parts">;
  readonly #bankPages: PageStore["bankPages"];
  /** Of the tokens that texts asked for, how many they drew: as if so many had drawn all. */
  readonly #asked = { texts: CAUTION, share: CAUTION };

  constructor({ config, parts, store: { bankPages } }: Pick<Batch, "config" | "parts" | "store">) {
    this.#model = { config, parts };
    this.#bankPages = bankPages;
  }

  /** Learns of a text's end. */
  ended({ drawn, count }: Pick<TextProgress, "drawn" | "count">): void {
    this.#asked.texts++;
    this.#asked.share += drawn / count;
  }

  /**
   * A question to ask of one text after the other: whether it too has room beside texts in slots and those asked about
   * before. freePages: pages of each bank that nobody has now.
   */
  room(inSlots: readonly TextProgress[], freePages: readonly number[]): (text: TextProgress) => boolean {
    const banks = this.#bankPages.length;
    const texts = inSlots.map((text) => this.#growing(text));
    const depth = this.#depthMet(texts, freePages);
    const free = [...freePages];
    return (text) => {
      texts.push(this.#growing(text));
      const peak = peakPages(this.#model, texts, { banks, depth });
      mostPages(this.#model, { tokens: text.prompt, banks }).forEach((pages, bank) => free[bank]! -= pages);
      return this.#bankPages.every((pages, bank) => peak[bank]! <= pages && free[bank]! >= 0);
    };
  }

  /** Tokens of a text that have keys and values, and how many it is expected to draw yet. */
  #growing({ prompt, count, drawn, least }: TextProgress): GrowingText {
    const share = this.#asked.share / this.#asked.texts;
    return {
      tokens: prompt - 1 + drawn,
      remaining: Math.max(least - drawn, Math.ceil(share * (count - drawn))),
    };
  }

  /** Pages in use, of those that texts were expected to need so far; 1 at least. */
  #depthMet(texts: readonly GrowingText[], freePages: readonly number[]): number {
    const banks = this.#bankPages.length;
    const expected = texts.map(({ tokens }) => sum(expectedPages(this.#model, { tokens, banks })));
    return Math.max(1, (sum(this.#bankPages) - sum(freePages)) / Math.max(1, sum(expected)));
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
