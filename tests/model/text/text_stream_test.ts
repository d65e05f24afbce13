import { assertEquals, assertThrows } from "@std/assert";
import { textRules, textStream } from "../../../model/text/text_stream.ts";
import type { TokenDecoder } from "../../../model/text/tokenizer.ts";
import { jsonTokenizer } from "../../../model/text/tokenizer_json.ts";
import type { DecoderStep } from "../../../model/text/tokenizer_schema.ts";
import { fixtureFiles, fixtureLines } from "../../support/tokenizer_fixture.ts";

function fail(text: string): never {
  throw new Error(text);
}

const byteLevel: DecoderStep = {
  type: "ByteLevel",
  add_prefix_space: true,
  trim_offsets: true,
  use_regex: true,
};
const sentencePiece: readonly DecoderStep[] = [
  { type: "Replace", pattern: { String: "▁" }, content: " " },
  { type: "ByteFallback" },
  { type: "Fuse" },
  { type: "Strip", content: " ", start: 1, stop: 0 },
];

function metaspace(prepend_scheme: "always" | "never"): DecoderStep {
  return { type: "Metaspace", replacement: "▁", prepend_scheme, split: true };
}

/** What a stream gives for each token, and at the end. "<s>" is a special token. */
function pieces(
  steps: readonly DecoderStep[],
  tokens: readonly string[],
  options: { isContinuation?: boolean } = {},
): string[] {
  const stream: TokenDecoder = textStream(textRules(steps, fail), {
    ...options,
    tokenOf: (id) => tokens[id] === "<s>" ? null : tokens[id] ?? null,
  });
  return [...tokens.map((_, id) => stream.push(id)), stream.flush()];
}

Deno.test("a byte-level stream gives characters as their bytes get complete", () => {
  // "é" is C3 A9, "👍" F0 9F 91 8D; a token may end inside one and begin in the next.
  assertEquals(pieces([byteLevel], ["aÃ", "©Ġb"]), ["a", "é b", ""]);
  assertEquals(pieces([byteLevel], ["ð", "Ł", "ĳ", "į", "!"]), ["", "", "", "👍", "!", ""]);
  assertEquals(pieces([byteLevel], ["Ċ", "Ġ", "ï»¿"]), ["\n", " ", "\ufeff", ""]);
  assertEquals(pieces([byteLevel], ["日 本"]), ["日 本", ""]);
});

Deno.test("bytes that are no character become U+FFFD and do not hold the stream back", () => {
  assertEquals(pieces([byteLevel], ["ð", "Ł", "a"]), ["", "", "\ufffda", ""]);
  assertEquals(pieces([byteLevel], ["©", "Ã"]), ["\ufffd", "", "\ufffd"]);
  assertEquals(pieces(sentencePiece, ["<0xE4>", "<0xB8>", "▁x"]), ["", "", "\ufffd x", ""]);
});

Deno.test("special and unknown tokens give nothing and do not come between bytes", () => {
  assertEquals(pieces([byteLevel], ["<s>", "Ã", "<s>", "©"]), ["", "", "", "é", ""]);
  const stream = textStream(textRules([byteLevel], fail), { tokenOf: () => null });
  assertEquals([stream.push(5), stream.flush()], ["", ""]);
});

Deno.test("SentencePiece's space before a text is taken away once, and only where the text begins", () => {
  assertEquals(pieces(sentencePiece, ["▁a", "▁b"]), ["a", " b", ""]);
  assertEquals(pieces(sentencePiece, ["<s>", "▁", "▁a"]), ["", "", " a", ""]);
  assertEquals(pieces(sentencePiece, ["▁▁▁a"]), ["  a", ""]);
  assertEquals(pieces(sentencePiece, ["a", "▁b"]), ["a", " b", ""]);
  assertEquals(pieces(sentencePiece, ["▁a", "▁b"], { isContinuation: true }), [" a", " b", ""]);
  assertEquals(pieces(sentencePiece.slice(0, 3), ["▁a"]), [" a", ""]);
  assertEquals(pieces(sentencePiece, ["<0x20>", "<0xE4>", "<0xB8>", "<0x96>"]), ["", "", "", "世", ""]);
  assertEquals(pieces(sentencePiece, ["<0xEF>", "<0xBB>", "<0xBF>"]), ["", "", "\ufeff", ""]);
});

Deno.test("Metaspace's first token loses its spaces unless none was put there", () => {
  assertEquals(pieces([metaspace("always")], ["▁a", "▁b"]), ["a", " b", ""]);
  assertEquals(pieces([metaspace("always")], ["▁a"], { isContinuation: true }), [" a", ""]);
  assertEquals(pieces([metaspace("never")], ["▁a", "▁b"]), [" a", " b", ""]);
});

Deno.test("the pieces of a text are never half a character and make up the text", () => {
  for (const form of ["byte_level", "sentence_piece"] as const) {
    const tokenizer = jsonTokenizer(fixtureFiles(form));
    for (const { text, ids, decoded } of fixtureLines(form)) {
      const stream = tokenizer.decoder();
      const parts = ids.map((id) => stream.push(id));
      assertEquals(parts.join(""), decoded, text);
      assertEquals(stream.flush(), "");
      assertEquals(parts.every((part) => part.isWellFormed()), true);
      assertEquals(parts.some((part) => part.includes("\ufffd")), text.includes("\ufffd"));
    }
  }
});

Deno.test("a token's cost does not grow with the text", () => {
  const stream = textStream(textRules([byteLevel], fail), { tokenOf: () => "Ġword" });
  // Decoding everything anew for each token would be some 10^10 bytes.
  for (let i = 0; i < 100_000; i++) assertEquals(stream.push(0).length, 5);
});

Deno.test("decoders that cannot be streamed as they are written are refused", () => {
  const [replace, bytes, fuse, strip] = sentencePiece as [DecoderStep, DecoderStep, DecoderStep, DecoderStep];
  for (const steps of [[], [byteLevel, fuse], [fuse, bytes], [strip, fuse], [replace, strip]]) {
    assertThrows(() => textRules(steps, fail), Error, "its decoder has the steps");
  }
});
