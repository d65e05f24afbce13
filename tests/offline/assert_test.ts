import {
  assert,
  assertAlmostEquals,
  assertArrayIncludes,
  assertEquals,
  assertExists,
  assertGreater,
  assertInstanceOf,
  AssertionError,
  assertLess,
  assertMatch,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  fail,
} from "@std/assert";

class Point {
  constructor(readonly x: number) {}
}

Deno.test("assertEquals takes equal values of every kind", () => {
  assertEquals({ a: [1, NaN, { b: "c" }] }, { a: [1, NaN, { b: "c" }] });
  assertEquals([0], [-0]);
  assertEquals(new Float32Array([0.5, -0]), new Float32Array([0.5, 0]));
  assertEquals(new Map([["a", { b: 1 }]]), new Map([["a", { b: 1 }]]));
  assertEquals(new Set([[1], [2]]), new Set([[2], [1]]));
  assertEquals(new Date(5), new Date(5));
  assertEquals(/a/g, /a/g);
  assertEquals(new Point(1), new Point(1));
});

Deno.test("assertEquals refuses different values of every kind", () => {
  const pairs: [unknown, unknown][] = [
    [1, "1"],
    [{ a: 1 }, { a: 1, b: undefined }],
    [[1, 2], [1, 2, 3]],
    [new Float32Array([1, 2]), new Float32Array([1, 3])],
    [new Float32Array([1]), new Float64Array([1])],
    [new Map([["a", 1]]), new Map([["a", 2]])],
    [new Set([1]), new Set([2])],
    [new Point(1), { x: 1 }],
    [null, undefined],
  ];
  for (const [actual, expected] of pairs) {
    assertThrows(() => assertEquals(actual, expected), AssertionError, "Values are not equal");
    assertNotEquals(actual, expected);
  }
});

Deno.test("assertEquals compares values that contain themselves", () => {
  const make = (): Record<string, unknown> => {
    const value: Record<string, unknown> = { name: "ring" };
    value["self"] = value;
    return value;
  };
  assertEquals(make(), make());
});

Deno.test("assertAlmostEquals uses the tolerance, by default 1e-7 of the expected value", () => {
  assertAlmostEquals(1 + 1e-8, 1);
  assertAlmostEquals(1.05, 1, 0.1);
  assertThrows(() => assertAlmostEquals(1.001, 1), AssertionError, "to be close to");
  assertThrows(() => assertAlmostEquals(NaN, 1, 10), AssertionError);
});

Deno.test("assertThrows checks class and message and returns the error", () => {
  const raise = (): never => {
    throw new RangeError("too big");
  };
  assertEquals(assertThrows(raise, RangeError, "too big").message, "too big");
  assertThrows(() => assertThrows(raise, TypeError), AssertionError, "RangeError");
  assertThrows(() => assertThrows(raise, RangeError, "small"), AssertionError, "small");
  assertThrows(() => assertThrows(() => 1), AssertionError, "Expected function to throw");
});

Deno.test("assertRejects checks class and message and returns the error", async () => {
  const reject = (): Promise<never> => Promise.reject(new RangeError("too big"));
  assertEquals((await assertRejects(reject, RangeError, "too big")).message, "too big");
  await assertRejects(() => assertRejects(reject, TypeError), AssertionError);
  await assertRejects(
    () => assertRejects(() => Promise.resolve(1)),
    AssertionError,
    "Expected function to reject",
  );
  await assertRejects(
    () =>
      assertRejects(() => {
        throw new Error("at once");
      }),
    AssertionError,
    "Function throws when expected to reject",
  );
});

Deno.test("the small assertions hold and fail as named", () => {
  assert(1);
  assertExists(0);
  assertGreater(2, 1);
  assertLess(1, 2);
  assertInstanceOf(new Point(1), Point);
  assertMatch("abc", /b/);
  assertStringIncludes("abc", "bc");
  assertArrayIncludes([{ a: 1 }, 2], [{ a: 1 }]);
  assertStrictEquals("a", "a");
  const failing: (() => void)[] = [
    () => assert(0, "zero"),
    () => assertExists(null),
    () => assertGreater(1, 1),
    () => assertLess(1, 1),
    () => assertInstanceOf({}, Point),
    () => assertMatch("abc", /x/),
    () => assertStringIncludes("abc", "x"),
    () => assertArrayIncludes([1], [2]),
    () => assertStrictEquals<unknown>({}, {}),
    () => fail("never"),
  ];
  for (const check of failing) assertThrows(check, AssertionError);
});
