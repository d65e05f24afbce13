/**
 * Tokens to text, one by one. A token stands for bytes, which need not be whole characters: what a token completes comes
 * out at once, what it leaves unfinished waits for the next one. The cost of a token does not grow with the text.
 */
import type { DecodeOptions, TokenDecoder } from "./tokenizer.ts";
import type { DecoderStep } from "./tokenizer_schema.ts";

/** What a tokenizer.json's decoder says about its tokens. */
export interface TextRules {
  /** UTF-8 of a token's text, which may begin or end inside a character. */
  bytesOf(token: string, options: { isFirst: boolean }): Uint8Array;
  /** Spaces that are taken away where a text begins. */
  readonly leadingSpaces: number;
  /** Tokens of single bytes that characters without a token fall back to; empty where they do not. */
  readonly fallbackTokens: readonly string[];
}

const utf8 = new TextEncoder();

/** Bytes by the characters that stand for them in byte-level vocabularies: printable ones for themselves. */
const BYTE_OF: ReadonlyMap<string, number> = byteCharacters();

function byteCharacters(): Map<string, number> {
  let next = 256;
  return new Map(Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = byte > 0x20 && byte < 0x7f || byte > 0xa0 && byte !== 0xad;
    return [String.fromCharCode(isPrintable ? byte : next++), byte];
  }));
}

/** A token of a byte-level vocabulary; one that has any other character is plain text. */
function byteLevelBytes(token: string): Uint8Array {
  const bytes = Array.from(token, (character) => BYTE_OF.get(character));
  return bytes.every((byte) => byte !== undefined) ? Uint8Array.from(bytes) : utf8.encode(token);
}

const FALLBACK_TOKENS: readonly string[] = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
);

/** A vocabulary of characters may hold `<0x00>` to `<0xFF>` for what it has no characters for. */
function fallbackBytes(token: string): Uint8Array {
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
  return byte === undefined ? utf8.encode(token) : Uint8Array.of(parseInt(byte, 16));
}

/** SentencePiece's steps, as the libraries that write such files order them. */
const SENTENCE_PIECE = /^(Replace )*(ByteFallback )?(Replace )*(Fuse (Replace )*(Strip )?)?$/;

/** What a decoder's steps amount to. */
export function textRules(steps: readonly DecoderStep[], fail: (text: string) => never): TextRules {
  const form = steps.map(({ type }) => `${type} `).join("");
  if (form === "ByteLevel ") return { bytesOf: byteLevelBytes, leadingSpaces: 0, fallbackTokens: [] };
  const [first] = steps;
  if (form === "Metaspace " && first?.type === "Metaspace") {
    const { replacement, prepend_scheme } = first;
    const atStart = prepend_scheme === "never" ? " " : "";
    return {
      bytesOf: (token, { isFirst }) => utf8.encode(token.replaceAll(replacement, isFirst ? atStart : " ")),
      leadingSpaces: 0,
      fallbackTokens: [],
    };
  }
  if (steps.length === 0 || !SENTENCE_PIECE.test(form)) {
    const known = "ByteLevel; Metaspace; or Replace, ByteFallback, Fuse, Strip in this order";
    fail(`its decoder has the steps ${form.trim() || "(none)"}, known are ${known}`);
  }
  const replacements = steps.filter((step) => step.type === "Replace");
  const hasBytes = steps.some(({ type }) => type === "ByteFallback");
  function bytesOf(token: string): Uint8Array {
    const text = replacements.reduce(
      (text, { pattern, content }) => text.replaceAll(pattern.String, () => content),
      token,
    );
    return hasBytes ? fallbackBytes(text) : utf8.encode(text);
  }
  const strip = steps.find((step) => step.type === "Strip");
  return { bytesOf, leadingSpaces: strip?.start ?? 0, fallbackTokens: hasBytes ? FALLBACK_TOKENS : [] };
}

/**
 * A decoder for a stream of tokens.
 *
 * @param tokenOf A token's entry in the vocabulary; null for one that is not printed.
 */
export function textStream(
  { bytesOf, leadingSpaces }: TextRules,
  { tokenOf, isContinuation = false }: DecodeOptions & { tokenOf: (id: number) => string | null },
): TokenDecoder {
  // Whatever cannot become a character any more is shown as U+FFFD at once, so that at most three bytes wait.
  const characters = new TextDecoder("utf-8", { ignoreBOM: true });
  let isFirst = !isContinuation;
  let spaces = isContinuation ? 0 : leadingSpaces;

  function strip(text: string): string {
    if (spaces === 0 || text === "") return text;
    const count = Math.min(spaces, /^ */.exec(text)![0].length);
    spaces = count === text.length ? spaces - count : 0;
    return text.slice(count);
  }
  return {
    push(id): string {
      const token = tokenOf(id);
      if (token === null) return "";
      const bytes = bytesOf(token, { isFirst });
      isFirst = false;
      return strip(characters.decode(bytes, { stream: true }));
    },
    flush: () => strip(characters.decode()),
  };
}
