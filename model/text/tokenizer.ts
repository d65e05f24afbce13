/** Text to token ids and back. */

/** What training and generation need of a tokenizer. */
export interface Tokenizer {
  readonly vocabSize: number;
  /** Separates documents and ends a text. */
  readonly endOfText: number;
  /** Every token that ends a generated text, `endOfText` among them. */
  readonly endTokens: readonly number[];
  encode(text: string, options?: EncodeOptions): number[];
  /** The same tokens, some at a time: those of a long text are more than an array holds. */
  encodeParts(text: string, options?: EncodeOptions): Iterable<ArrayLike<number>>;
  /** A decoder for a stream of tokens: it holds back bytes until they make whole characters. */
  decoder(options?: DecodeOptions): TokenDecoder;
}

export interface EncodeOptions {
  /** Adds what the tokenizer puts around a text, such as a begin-of-text token; true unless given. */
  readonly addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /**
   * The tokens go on with a text whose beginning is already there, so that the first one's leading space counts. False
   * unless given: tokenizers that put a space before a text take it away again.
   */
  readonly isContinuation?: boolean;
}

export interface TokenDecoder {
  /** Text that the token completes; may be empty. */
  push(id: number): string;
  /** What is left; an unfinished character becomes U+FFFD. */
  flush(): string;
}

const END_OF_TEXT = 256;

/** UTF-8 bytes as tokens 0..255, end of text as 256. */
export const byteTokenizer: Tokenizer = {
  vocabSize: 257,
  endOfText: END_OF_TEXT,
  endTokens: [END_OF_TEXT],
  encode: (text) => [...new TextEncoder().encode(text)],
  encodeParts: (text) => [new TextEncoder().encode(text)],
  decoder(): TokenDecoder {
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (id) => id < END_OF_TEXT ? utf8.decode(Uint8Array.of(id), { stream: true }) : "",
      flush: () => utf8.decode(),
    };
  },
};
