import { assertAlmostEquals, assertEquals } from "@std/assert";
import type { DispatchTime } from "../../gpu/timing.ts";
import { depthTimes, kernelTimes, partTimes, totalMilliseconds } from "../../model/profile_times.ts";

function dispatch(
  label: string,
  part: string,
  milliseconds: number,
  more: Partial<DispatchTime> = {},
): DispatchTime {
  return {
    label,
    part,
    startMilliseconds: 0,
    milliseconds,
    work: { flops: 10, bytes: 4 },
    rows: null,
    ...more,
  };
}

/** Two steps of decoding, twice. */
const REPEATS = [[2, 1, 4, 3], [4, 3, 8, 3]].map(([a, b, c, d]) => [
  dispatch("matmul product", "first layers", a!),
  dispatch("attention forward", "recursion 1", b!, { rows: 1 }),
  dispatch("matmul product", "first layers", c!),
  dispatch("attention forward", "recursion 1", d!, { rows: 0, work: { flops: 0, bytes: 0 } }),
]);

Deno.test("kernelTimes gives one piece of the work: calls, the median of the repeats, mean work", () => {
  assertEquals(kernelTimes({ repeats: REPEATS, pieces: 2 }), [
    // Sums of 6 and 12 ms for two steps.
    { label: "matmul product", calls: 1, milliseconds: 4.5, flops: 10, bytes: 4 },
    { label: "attention forward", calls: 1, milliseconds: 2.5, flops: 5, bytes: 2 },
  ]);
});

Deno.test("work that one dispatch does not tell is not told of its kernel", () => {
  const silent = [[...REPEATS[0]!, dispatch("matmul product", "head", 1, { work: null })]];
  const [first, second] = kernelTimes({ repeats: silent, pieces: 1 });
  assertEquals([first!.flops, first!.bytes, second!.flops], [null, null, 10]);
});

Deno.test("partTimes keeps the order of the work and counts the rows of its attention", () => {
  const parts = partTimes({ repeats: REPEATS, pieces: 2 });
  assertEquals(parts.map(({ part, rows }) => [part, rows]), [["first layers", null], ["recursion 1", 0.5]]);
  assertAlmostEquals(totalMilliseconds(parts), 4.5 + 2.5, 1e-12);
});

Deno.test("depthTimes sorts steps by the depth of their token", () => {
  const times = depthTimes({ repeats: REPEATS, depths: [3, 1] });
  assertEquals(times, [
    { depth: 1, steps: 1, milliseconds: (7 + 11) / 2 },
    { depth: 3, steps: 1, milliseconds: (3 + 7) / 2 },
  ]);
  assertEquals(depthTimes({ repeats: REPEATS, depths: [2, 2] }), [{ depth: 2, steps: 2, milliseconds: 7 }]);
});
