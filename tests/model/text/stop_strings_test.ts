import { assertEquals } from "@std/assert";
import { StopStrings } from "../../../model/text/stop_strings.ts";

/** What comes out of a stream of pieces, piece by piece, and at its end. */
function passed(stops: readonly string[], pieces: readonly string[]): { out: string[]; isFound: boolean } {
  const strings = new StopStrings(stops);
  const out = pieces.map((piece) => strings.push(piece));
  return { out: [...out, strings.isFound ? "" : strings.flush()], isFound: strings.isFound };
}

Deno.test("a text without stop strings passes through as it comes", () => {
  assertEquals(passed([], ["ab", "", "c"]), { out: ["ab", "", "c", ""], isFound: false });
});

Deno.test("a stop string ends the text before it, also across pieces", () => {
  assertEquals(passed(["END"], ["one E", "N", "D two"]), { out: ["one ", "", "", ""], isFound: true });
});

Deno.test("the beginning of a stop string is held back until it is none", () => {
  assertEquals(passed(["END"], ["one EN", "T"]), { out: ["one ", "ENT", ""], isFound: false });
  assertEquals(passed(["END"], ["one EN"]), { out: ["one ", "EN"], isFound: false });
});

Deno.test("of several stop strings the first in the text counts", () => {
  assertEquals(passed(["b", "a"], ["xaxb"]), { out: ["x", ""], isFound: true });
  assertEquals(passed(["abab", "bac"], ["aba", "c"]), { out: ["", "a", ""], isFound: true });
});
