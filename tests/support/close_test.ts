import { assertEquals, assertThrows } from "@std/assert";
import { assertClose } from "./close.ts";
import { createRandom } from "./random.ts";

Deno.test("assertClose returns the deviation relative to the largest magnitude", () => {
  assertEquals(assertClose([1, 2, 4], [1, 2.5, 4], { relative: 0.2, label: "x" }), 0.125);
  assertEquals(assertClose([0, 0], [0, 0], { relative: 0, label: "x" }), 0);
  assertEquals(assertClose([], [], { relative: 0, label: "x" }), 0);
});

Deno.test("assertClose can compare norms", () => {
  assertEquals(assertClose([3, 5], [3, 4], { relative: 0.2, measure: "norm", label: "x" }), 0.2);
  assertThrows(() => assertClose([3, 5], [3, 4], { relative: 0.19, measure: "norm", label: "x" }));
});

Deno.test("assertClose names the worst index and both values there", () => {
  const error = assertThrows(
    () => assertClose([1, 2.25, 3.1], [1, 2, 3], { relative: 1e-3, label: "gradX" }),
    Error,
  );
  assertEquals(/^gradX: .*index 1 of 3: met 2\.25, expected 2$/.test(error.message), true, error.message);
});

Deno.test("assertClose refuses other lengths, values that are not finite and any deviation from zero", () => {
  assertThrows(() => assertClose([1], [1, 2], { relative: 1, label: "x" }), Error, "1 values, expected 2");
  assertThrows(() => assertClose([1, NaN], [1, 2], { relative: 1, label: "x" }), Error, "index 1 met NaN");
  assertThrows(
    () => assertClose([Infinity], [Infinity], { relative: 1, label: "x" }),
    Error,
    "index 0 met Infinity",
  );
  assertThrows(() => assertClose([1e-9], [0], { relative: 1, label: "x" }), Error, "index 0");
  assertClose([1e-9], [0], { relative: 1, absolute: 1e-8, label: "x" });
});

Deno.test("createRandom repeats with its seed and is standard normal", () => {
  assertEquals(createRandom(5).normals(4), createRandom(5).normals(4));
  const values = createRandom(6).normals(20000);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  assertClose([mean, variance], [0, 1], { relative: 0.03, label: "mean and variance" });
});
