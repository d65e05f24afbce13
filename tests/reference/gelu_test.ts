import { assertEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { assertGradient } from "./central_differences.ts";
import { erfc, gelu, geluBackward } from "./gelu.ts";
import { dot } from "./rows.ts";

Deno.test("erfc has the values of the C library", () => {
  const values = [
    [0, 1],
    [0.1, 0.8875370839817152],
    [1, 0.15729920705028513],
    [2, 0.004677734981047265],
    [2.99, 2.3525603080640195e-5],
    [3.01, 2.073896363713263e-5],
    [6, 2.1519736712498916e-17],
    [-0.5, 1.5204998778130465],
    [-4, 1.999999984582742],
  ] as const;
  for (const [x, expected] of values) {
    assertClose([erfc(x)], [expected], { relative: 0, absolute: 1e-14, label: `erfc(${x})` });
  }
  assertClose([erfc(10)], [2.088487583762545e-45], { relative: 1e-14, label: "erfc(10)" });
});

Deno.test("gelu gradient matches central differences", () => {
  const random = createRandom(61);
  const settings = { scale: 0.6 };
  const x = random.normals(40, 3);
  const gradOut = random.normals(40);
  assertGradient(geluBackward({ gradOut, x }, settings), {
    loss: () => dot(gradOut, gelu({ x }, settings)),
    x,
    label: "x",
  });
});

Deno.test("gelu is 0 at 0, x far above and 0 far below", () => {
  assertEquals(gelu({ x: Float64Array.of(0, 40, -80) }, { scale: 0.5 }), Float64Array.of(0, 20, -0));
});
