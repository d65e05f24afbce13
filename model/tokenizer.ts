/** Text to token ids and back. */

/** What training and generation need of a tokenizer. */
export interface Tokenizer {
  readonly vocabSize: number;
  /** Separates documents and ends a text. */
  readonly endOfText: number;
  encode(text: string): number[];
  /** A decoder for a stream of tokens: it holds back bytes until they make whole characters. */
  decoder(): TokenDecoder;
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
  encode: (text) => [...new TextEncoder().encode(text)],
  decoder(): TokenDecoder {
    const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
    return {
      push: (id) => id < END_OF_TEXT ? utf8.decode(Uint8Array.of(id), { stream: true }) : "",
      flush: () => utf8.decode(),
    };
  },
};
