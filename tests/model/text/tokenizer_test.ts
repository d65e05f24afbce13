import { assertEquals } from "@std/assert";
import { byteTokenizer } from "../../../model/text/tokenizer.ts";

const text = "Grüße, 世界 👩‍🚀\u0000\uFEFFend\n";

Deno.test("the byte tokenizer gives back what it was given, character by character as they get whole", () => {
  const ids = byteTokenizer.encode(text);
  assertEquals(ids, [...new TextEncoder().encode(text)]);
  const decoder = byteTokenizer.decoder();
  const pieces = ids.map((id) => decoder.push(id));
  assertEquals(pieces.join("") + decoder.flush(), text);
  // G, r, nothing at the first byte of the u with dots, the character at its second.
  assertEquals(pieces.slice(0, 4), ["G", "r", "", "ü"]);
  assertEquals(pieces.every((piece) => !piece.includes("\uFFFD")), true);
});

Deno.test("a decoder shows an unfinished character at the end and a broken one at once", () => {
  const [first, second, third] = byteTokenizer.encode("世");
  const unfinished = byteTokenizer.decoder();
  assertEquals([unfinished.push(first!), unfinished.push(second!), unfinished.flush()], ["", "", "\uFFFD"]);
  const broken = byteTokenizer.decoder();
  assertEquals([broken.push(first!), broken.push(65), broken.push(third!)], ["", "\uFFFDA", "\uFFFD"]);
});

Deno.test("the end of text is a token without text, and decoders do not share their bytes", () => {
  assertEquals([byteTokenizer.vocabSize, byteTokenizer.endOfText], [257, 256]);
  assertEquals(byteTokenizer.endTokens, [256]);
  const [one, other] = [byteTokenizer.decoder(), byteTokenizer.decoder()];
  assertEquals([one.push(0xc3), other.push(65), one.push(256), one.push(0xbc)], ["", "A", "", "ü"]);
});
