import { assertAlmostEquals, assertEquals } from "@std/assert";
import { likeliestTokens } from "../../model/sampling.ts";

Deno.test("likeliestTokens gives log-probabilities, likeliest first, ties to the lowest id", () => {
  const logits = Float32Array.of(1, 3, 3, -2, -Infinity);
  const top = likeliestTokens(logits, { count: 3 });
  assertEquals(top.map(({ id }) => id), [1, 2, 0]);
  const total = Math.exp(1) + 2 * Math.exp(3) + Math.exp(-2);
  for (const { id, logProbability } of top) {
    assertAlmostEquals(logProbability, logits[id]! - Math.log(total), 1e-12);
  }
});

Deno.test("likeliestTokens stays finite for large logits and gives no more tokens than there are", () => {
  const [first, second, ...rest] = likeliestTokens(Float32Array.of(1e30, 0), { count: 5 });
  assertEquals(first, { id: 0, logProbability: 0 });
  assertEquals([second!.id, second!.logProbability], [1, -Math.fround(1e30)]);
  assertEquals(rest, []);
});
