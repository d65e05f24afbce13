/** What a model writes and files are named reaches a terminal as pictures. */
import { assert, assertEquals } from "@std/assert";
import { showControls } from "../../cli/control_characters.ts";

Deno.test("showControls puts a picture in the place of every control character but line ends and tabs", () => {
  assertEquals(showControls("a\tb\nc\r\n d"), "a\tb\nc\r\n d");
  assertEquals(showControls("\x1b[2J\x07\x00\x7f"), "␛[2J␇␀␡");
  assertEquals(showControls("over\rwritten\r"), "over␍written␍");
  assertEquals(showControls("\x9b31m\x85"), "\\x9b31m\\x85");
  const all = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code)).join("");
  assert(!/[^\P{Cc}\t\n]/u.test(showControls(all)));
  assertEquals(showControls("naïve 鯨 👍🏽 \u202e"), "naïve 鯨 👍🏽 \u202e");
});
