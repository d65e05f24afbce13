import { assertAlmostEquals, assertEquals } from "@std/assert";
import { compareSpeeds, type Side, type WorkTimes } from "../../model/speed_comparison.ts";

Deno.test("compareSpeeds alternates the order and takes the ratio within each pair", async () => {
  const order: Side[] = [];
  const seen: unknown[] = [];
  const times: Record<Side, number[]> = { base: [10, 20, 40], change: [5, 40, 10] };
  const contender = (side: Side) => (): Promise<WorkTimes> => {
    order.push(side);
    const milliseconds = times[side].shift()!;
    return Promise.resolve({
      decode: { milliseconds, tokens: 1 },
      prefill: { milliseconds: 2 * milliseconds, tokens: 7 },
    });
  };
  const works = await compareSpeeds({ base: contender("base"), change: contender("change") }, {
    pairs: 3,
    onMeasured: (...args) => seen.push(args),
  });
  assertEquals(order, ["base", "change", "change", "base", "base", "change"]);
  assertEquals(seen, [
    [1, "base", 1],
    [2, "change", 1],
    [3, "change", 2],
    [4, "base", 2],
    [5, "base", 3],
    [6, "change", 3],
  ]);
  assertEquals(works.map(({ work }) => work), ["prefill", "decode"]);
  const [prefill, decode] = works;
  for (const { pairs, ratios } of works) {
    assertEquals(pairs.map(({ first }) => first), ["base", "change", "base"]);
    for (const [i, ratio] of [2, 0.5, 4].entries()) assertAlmostEquals(pairs[i]!.ratio, ratio, 1e-12);
    assertAlmostEquals(ratios.geometricMean, 4 ** (1 / 3), 1e-12);
  }
  assertEquals(prefill!.pairs[1]!.base, { milliseconds: 40, tokens: 7 });
  assertEquals(decode!.pairs[1]!.change, { milliseconds: 40, tokens: 1 });
});

Deno.test("compareSpeeds compares the time of a token where the sides run different numbers of them", async () => {
  const [works] = await compareSpeeds({
    base: () => Promise.resolve({ train: { milliseconds: 10, tokens: 100 } }),
    change: () => Promise.resolve({ train: { milliseconds: 15, tokens: 300 } }),
  }, { pairs: 1, onMeasured: () => {} });
  assertAlmostEquals(works!.pairs[0]!.ratio, 2, 1e-12);
});
