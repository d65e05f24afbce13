import { assertEquals, assertMatch } from "@std/assert";
import { unicodeWidth } from "@std/cli/unicode-width";
import { ProgressBar } from "@std/cli/unstable-progress-bar";

Deno.test("unicodeWidth counts columns", () => {
  assertEquals(unicodeWidth("hello"), 5);
  assertEquals(unicodeWidth("天地"), 4);
  assertEquals(unicodeWidth("e\u0301"), 1);
  assertEquals(unicodeWidth("\n"), 0);
  assertEquals(unicodeWidth("█░▁"), 3);
});

async function draw(clear: boolean): Promise<string> {
  const stream = new TransformStream<Uint8Array, Uint8Array>();
  const text = new Response(stream.readable).text();
  const bar = new ProgressBar({
    writable: stream.writable,
    max: 4,
    barLength: 8,
    clear,
    keepOpen: false,
    formatter: ({ progressBar, value, max, styledTime }) => `${styledTime} ${progressBar} ${value}/${max}`,
  });
  bar.value = 2;
  await bar.stop();
  return await text;
}

Deno.test("ProgressBar redraws its line and ends it", async () => {
  assertEquals(await draw(false), "\r\x1b[K00:00 -------- 0/4\r\x1b[K00:00 ####---- 2/4\n");
});

Deno.test("ProgressBar removes its line when told to clear", async () => {
  // deno-lint-ignore no-control-regex -- the line is cleared by an escape sequence
  assertMatch(await draw(true), /\r\x1b\[K$/);
});
