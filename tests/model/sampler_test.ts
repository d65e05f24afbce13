import { assertAlmostEquals, assertEquals, assertNotEquals } from "@std/assert";
import { uniform } from "../../model/random.ts";
import { logProbabilities, sampleToken, type SamplingOptions } from "../../model/sampler.ts";

const plain: SamplingOptions = { repeatPenalty: 1, topK: 0, topP: 1, minP: 0, temperature: 1 };
const probabilities = [0.4, 0.05, 0.3, 0.05, 0.2];
const logits = Float32Array.from(probabilities, Math.log);

/** Relative frequency of each token in many draws. */
function frequencies(
  options: Partial<SamplingOptions>,
  { seen = [] as number[], count = 20_000 } = {},
): number[] {
  const times = new Array<number>(logits.length).fill(0);
  const next = uniform(4, "sampling");
  const settings = { options: { ...plain, ...options }, seen: new Set(seen), next };
  for (let i = 0; i < count; i++) times[sampleToken(logits, settings)]! += 1;
  return times.map((n) => n / count);
}

function assertFrequencies(actual: readonly number[], wanted: readonly number[]): void {
  const total = wanted.reduce((sum, weight) => sum + weight, 0);
  // Five standard deviations of a fair coin, 20,000 times.
  actual.forEach((frequency, id) => assertAlmostEquals(frequency, wanted[id]! / total, 0.018, `token ${id}`));
  wanted.forEach((weight, id) => weight === 0 && assertEquals(actual[id], 0, `token ${id}`));
}

Deno.test("temperature 0 takes the likeliest token, ties to the lowest id", () => {
  const greedy = { options: { ...plain, temperature: 0 }, seen: new Set<number>(), next: () => 0.999 };
  assertEquals(sampleToken(logits, greedy), 0);
  assertEquals(sampleToken(Float32Array.of(-3, 2, 1, 2, 2), greedy), 1);
  assertEquals(sampleToken(Float32Array.of(0, 0), greedy), 0);
});

Deno.test("temperature 1 draws from the model's own distribution", () => {
  assertFrequencies(frequencies({}), probabilities);
});

Deno.test("temperature sharpens and flattens", () => {
  assertFrequencies(frequencies({ temperature: 0.5 }), probabilities.map((p) => p ** 2));
  assertFrequencies(frequencies({ temperature: 4 }), probabilities.map((p) => p ** 0.25));
});

Deno.test("topK keeps the k likeliest, equal ones by id", () => {
  assertFrequencies(frequencies({ topK: 2 }), [0.4, 0, 0.3, 0, 0]);
  assertFrequencies(frequencies({ topK: 4 }), [0.4, 0.05, 0.3, 0, 0.2]);
  assertFrequencies(frequencies({ topK: 99 }), probabilities);
  assertEquals(frequencies({ topK: 1 }, { count: 50 })[0], 1);
});

Deno.test("topP keeps the fewest tokens that reach the sum", () => {
  assertFrequencies(frequencies({ topP: 0.69 }), [0.4, 0, 0.3, 0, 0]);
  assertFrequencies(frequencies({ topP: 0.71 }), [0.4, 0, 0.3, 0, 0.2]);
  assertEquals(frequencies({ topP: 0 }, { count: 50 })[0], 1);
});

Deno.test("minP keeps tokens by their ratio to the likeliest", () => {
  assertFrequencies(frequencies({ minP: 0.49 }), [0.4, 0, 0.3, 0, 0.2]);
  assertFrequencies(frequencies({ minP: 0.51 }), [0.4, 0, 0.3, 0, 0]);
  assertEquals(frequencies({ minP: 1 }, { count: 50 })[0], 1);
});

Deno.test("filters look at the distribution before the temperature", () => {
  // At temperature 100 all tokens are nearly equal: topP 0.69 would keep four of them.
  assertFrequencies(frequencies({ topP: 0.69, temperature: 100 }), [0.4 ** 0.01, 0, 0.3 ** 0.01, 0, 0]);
});

Deno.test("repeatPenalty makes tokens of the text less likely, whatever the logit's sign", () => {
  const options = { ...plain, repeatPenalty: 2, temperature: 0 };
  const take = (values: number[], seen: number[]): number =>
    sampleToken(Float32Array.from(values), { options, seen: new Set(seen), next: () => 0 });
  assertEquals(take([3, 2], [0]), 1);
  assertEquals(take([3, 1], [0]), 0);
  assertEquals(take([-1, -1.5], [0]), 1);
  assertEquals(take([-1, -3], [0]), 0);
  assertEquals(take([3, 2], []), 0);
});

Deno.test("the same seed draws the same tokens", () => {
  const draw = (seed: number): number[] => {
    const settings = { options: plain, seen: new Set<number>(), next: uniform(seed, "sampling") };
    return Array.from({ length: 40 }, () => sampleToken(logits, settings));
  };
  assertEquals(draw(1), draw(1));
  assertNotEquals(draw(1), draw(2));
});

Deno.test("sampleToken always finds a token, at both ends of the generator", () => {
  for (const next of [0, 1 - 2 ** -32]) {
    const id = sampleToken(logits, { options: plain, seen: new Set(), next: () => next });
    assertEquals(id, next === 0 ? 0 : 3);
  }
  const impossible = Float32Array.of(-Infinity, 5, -Infinity);
  assertEquals(sampleToken(impossible, { options: plain, seen: new Set(), next: () => 0.99999 }), 1);
});

Deno.test("logProbabilities are the model's own, likeliest first", () => {
  const shifted = logits.map((logit) => logit + 300);
  const { chosen, top } = logProbabilities(shifted, { chosen: 2, count: 4 });
  assertEquals([chosen.id, ...top.map(({ id }) => id)], [2, 0, 2, 4, 1]);
  [chosen, ...top].forEach(({ id, logProbability }) =>
    assertAlmostEquals(logProbability, Math.log(probabilities[id]!), 1e-4)
  );
  assertEquals(logProbabilities(shifted, { chosen: 0, count: 0 }).top, []);
});
