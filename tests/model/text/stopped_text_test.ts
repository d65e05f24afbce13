import { assertEquals } from "@std/assert";
import { StoppedText } from "../../../model/text/stopped_text.ts";
import { byteTokenizer } from "../../../model/text/tokenizer.ts";

const whole = "Der Käse 🐋 schwimmt, naïve Wale — 鲸。鲸！ x";
const bytes = byteTokenizer.encode(whole);

/** What a text of the tokens shows piece by piece, and whether it was stopped. */
function shown(ids: readonly number[], stops: readonly string[]): { pieces: string[]; isStopped: boolean } {
  const text = new StoppedText(byteTokenizer.decoder({ isContinuation: true }), { stops });
  const pieces = [...ids.map((id) => text.push(id)), text.finish()];
  assertEquals(text.text, pieces.join(""));
  return { pieces, isStopped: text.isStopped };
}

Deno.test("a text ends before the first stop string, whose bytes are tokens of their own", () => {
  for (const stops of [["🐋"], ["鲸。", "鲸！"], ["e W", "ï"], ["Wale —", "schwimmt, n"], ["D"], ["x"]]) {
    const { pieces, isStopped } = shown(bytes, stops);
    const places = stops.map((stop) => whole.indexOf(stop)).filter((place) => place >= 0);
    assertEquals(pieces.join(""), whole.slice(0, Math.min(...places)), stops.join(" or "));
    assertEquals(isStopped, true);
  }
  const { pieces, isStopped } = shown(bytes, ["Kase", "鲸鲸"]);
  assertEquals([pieces.join(""), isStopped], [whole, false]);
});

Deno.test("nothing of a stop string is shown before it is known to be none", () => {
  const { pieces } = shown(byteTokenizer.encode("abcabd"), ["abd"]);
  assertEquals(pieces, ["", "", "abc", "", "", "", ""]);
});

Deno.test("a text that ends within a stop string or a character keeps what there is", () => {
  for (let count = 0; count <= bytes.length; count++) {
    const cut = new TextDecoder().decode(Uint8Array.from(bytes.slice(0, count)));
    const { pieces, isStopped } = shown(bytes.slice(0, count), ["鲸！ x and more"]);
    assertEquals([pieces.join(""), isStopped], [cut, false]);
  }
});

Deno.test("a stop string may be what a cut character becomes", () => {
  assertEquals(shown([97, 0xf0, 0x9f], ["\ufffd"]), { pieces: ["a", "", "", ""], isStopped: true });
});
