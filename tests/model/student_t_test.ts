import { assertAlmostEquals } from "@std/assert";
import { studentT } from "../../model/student_t.ts";

Deno.test("studentT is the closed form for one and two degrees of freedom", () => {
  for (const probability of [0.5, 0.9, 0.95, 0.999]) {
    assertAlmostEquals(studentT(1, { probability }), Math.tan(probability * Math.PI / 2), 1e-9);
    const two = Math.sqrt(2 * probability ** 2 / (1 - probability ** 2));
    assertAlmostEquals(studentT(2, { probability }), two, 1e-9);
  }
});

Deno.test("studentT is what tables of the distribution say", () => {
  // Percentage points of the t distribution: Abramowitz and Stegun, table 26.10.
  const table = [
    [3, 0.95, 3.182],
    [4, 0.95, 2.776],
    [5, 0.95, 2.571],
    [6, 0.95, 2.447],
    [6, 0.99, 3.707],
    [9, 0.9, 1.833],
    [10, 0.95, 2.228],
    [30, 0.95, 2.042],
    [120, 0.95, 1.98],
  ] as const;
  for (const [degrees, probability, t] of table) {
    assertAlmostEquals(studentT(degrees, { probability }), t, 5e-4, `${degrees} degrees`);
  }
});

Deno.test("studentT of many degrees is the normal distribution's", () => {
  for (const degrees of [20_000, 20_001]) {
    assertAlmostEquals(studentT(degrees, { probability: 0.95 }), 1.959964, 2e-4);
  }
});
