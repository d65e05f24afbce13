import { assertEquals, assertThrows } from "@std/assert";
import { TimeLimitError, withinTime } from "../../model/time_limit.ts";

Deno.test("work that ends gives its result, or its error", () => {
  assertEquals(withinTime(1000, () => [1, "a"]), [1, "a"]);
  const error = new RangeError("its own");
  assertEquals(
    assertThrows(() =>
      withinTime(1000, () => {
        throw error;
      })
    ),
    error,
  );
});

Deno.test("loops and patterns that do not end are ended, and what comes after runs", () => {
  const word = `${"a".repeat(50)}!`;
  const endless: readonly (() => unknown)[] = [() => /(a+)+$/.test(word), () => {
    for (;;);
  }, () => word.matchAll(/(a|a)*$/g).next()];
  for (const work of endless) {
    assertThrows(() => withinTime(50, work), TimeLimitError, "does not end within 0.05 s");
    assertEquals(withinTime(1000, () => word.length), 51);
  }
});

Deno.test("limits can stand inside each other: the shorter one counts", () => {
  const endless = (): void => {
    for (;;);
  };
  assertThrows(() => withinTime(50, () => withinTime(60_000, endless)), TimeLimitError, "0.05 s");
  const caught = withinTime(
    60_000,
    () => assertThrows(() => withinTime(50, endless), TimeLimitError, "0.05 s"),
  );
  assertEquals(caught instanceof TimeLimitError, true);
  assertEquals(withinTime(1000, () => withinTime(1000, () => 1) + 1), 2);
});
