import { assertAlmostEquals, assertEquals, assertNotEquals } from "@std/assert";
import { fillNormal, hash, permutation, type Uniform, uniform } from "../../model/random.ts";

function draw(next: Uniform, count: number): number[] {
  return Array.from({ length: count }, next);
}

Deno.test("uniform repeats with seed and purpose, and with nothing else", () => {
  assertEquals(draw(uniform(7, "batches", 3), 5), draw(uniform(7, "batches", 3), 5));
  const streams = [
    uniform(7, "batches", 3),
    uniform(8, "batches", 3),
    uniform(7, "batches", 4),
    uniform(7, "batches"),
    uniform(7, "weights", 3),
    uniform(73, "batches"),
    uniform(7, "batches3"),
  ];
  const firsts = streams.map((next) => draw(next, 3).join());
  assertEquals(new Set(firsts).size, streams.length);
});

Deno.test("uniform fills [0, 1) evenly, neighbours unrelated", () => {
  const count = 40_000;
  const values = draw(uniform(1, "test"), count);
  assertEquals(values.every((value) => value >= 0 && value < 1), true);
  const bins = new Array<number>(16).fill(0);
  for (const value of values) bins[Math.floor(value * 16)]! += 1;
  // Five standard deviations.
  for (const bin of bins) assertAlmostEquals(bin / count, 1 / 16, 5 * Math.sqrt(15 / 256 / count));
  const covariance = values.slice(1).reduce((sum, value, i) => sum + (value - 0.5) * (values[i]! - 0.5), 0) /
    count;
  assertAlmostEquals(12 * covariance, 0, 5 / Math.sqrt(count));
});

Deno.test("fillNormal is normal with the wanted deviation, for odd lengths too", () => {
  const values = new Float32Array(40_001);
  fillNormal(values, { next: uniform(3, "weights"), scale: 0.05 });
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const moment = (power: number): number =>
    values.reduce((sum, value) => sum + (value / 0.05) ** power, 0) / values.length;
  assertAlmostEquals(mean, 0, 5 * 0.05 / 200);
  assertAlmostEquals(moment(2), 1, 0.04);
  assertAlmostEquals(moment(4), 3, 0.3);
  assertNotEquals(values.at(-1), 0);
});

Deno.test("permutation has every index once and follows its generator", () => {
  const order = permutation(100, uniform(1, "order"));
  assertEquals([...order].sort((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i));
  assertEquals(permutation(100, uniform(1, "order")), order);
  assertNotEquals(permutation(100, uniform(2, "order")), order);
  assertEquals([permutation(0, uniform(1)), permutation(1, uniform(1))], [
    new Uint32Array(0),
    Uint32Array.of(0),
  ]);
  const firsts = new Array<number>(4).fill(0);
  for (let seed = 0; seed < 4000; seed++) firsts[permutation(4, uniform(seed, "order"))[0]!]! += 1;
  for (const times of firsts) assertAlmostEquals(times, 1000, 5 * Math.sqrt(4000 * 3 / 16));
});

Deno.test("hash gives 32 bits that change with text and salt", () => {
  const values = ["", "a", "b", "ab", "ba"].flatMap((text) => [hash(text), hash(text, 1)]);
  assertEquals(new Set(values).size, 10);
  assertEquals(values.every((value) => Number.isInteger(value) && value >= 0 && value < 2 ** 32), true);
  assertEquals(hash("a"), hash("a", 0));
});
