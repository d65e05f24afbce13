/** Choosing by measurements, with made-up times. */
import { assertEquals } from "@std/assert";
import { fastestOf, type Trial, tryCandidates } from "../../gpu/tuning/trials.ts";

/** Tries candidates whose runs take the given times, the last one again and again; says what was run in which order. */
async function tryWith(
  times: Readonly<Record<string, readonly number[]>>,
  problems: Readonly<Record<string, string>> = {},
): Promise<{ trials: Trial<string>[]; runs: string }> {
  const runs: string[] = [];
  const counts = new Map<string, number>();
  const trials = await tryCandidates(Object.keys(times), {
    check: (candidate) => Promise.resolve(problems[candidate] ?? null),
    time: (candidate) => {
      runs.push(candidate);
      const count = counts.get(candidate) ?? 0;
      counts.set(candidate, count + 1);
      return Promise.resolve(times[candidate]![count] ?? times[candidate]!.at(-1)!);
    },
  });
  return { trials, runs: runs.join("") };
}

Deno.test("tryCandidates runs all in turn and gives medians", async () => {
  const { trials, runs } = await tryWith({ a: [9, 4, 5, 3, 7], b: [2, 3, 2, 8, 2] });
  assertEquals(runs, "ababababab");
  assertEquals(trials, [
    { candidate: "a", milliseconds: 5, note: null },
    { candidate: "b", milliseconds: 2, note: null },
  ]);
});

Deno.test("tryCandidates gives up on what is over 3 times slower, but not for one disturbed run", async () => {
  const { trials, runs } = await tryWith({ a: [2], b: [6.1], c: [50, 1], d: [6] });
  // Each runs once; b and c once more; then all but b, four times.
  assertEquals(runs, "abcd" + "bc" + "acd".repeat(4));
  assertEquals(trials.map(({ note }) => note), [null, "over 3 times slower", null, null]);
  assertEquals(trials.map(({ milliseconds }) => milliseconds), [2, 6.1, 1, 6]);
});

Deno.test("tryCandidates never gives up on the default", async () => {
  const { trials, runs } = await tryWith({ a: [90, 2], b: [4] });
  assertEquals(runs, "ababababab");
  assertEquals(fastestOf(trials), "a");
  const slower = await tryWith({ a: [90], b: [4] });
  assertEquals(fastestOf(slower.trials), "b");
});

Deno.test("tryCandidates runs what takes long once, and what is alone once", async () => {
  assertEquals((await tryWith({ a: [200], b: [150] })).runs, "ab");
  assertEquals((await tryWith({ a: [2], b: [7] })).runs, "abb");
});

Deno.test("tryCandidates times nothing that is wrong", async () => {
  const { trials, runs } = await tryWith({ a: [2], b: [1], c: [3] }, { b: "wrong" });
  assertEquals(runs, "acacacacac");
  assertEquals(trials[1], { candidate: "b", milliseconds: null, note: "wrong" });
  assertEquals(fastestOf(trials), "a");
});

Deno.test("fastestOf leaves the default only for more than noise", () => {
  const choose = (...times: readonly (number | null)[]): number =>
    fastestOf(times.map((milliseconds, candidate) => ({ candidate, milliseconds, note: null })));
  assertEquals(choose(10, 9.6), 0);
  assertEquals(choose(10, 9.4), 1);
  assertEquals(choose(10, 9.4, 9.3), 2);
  assertEquals(choose(10, 12, 9.4), 2);
  assertEquals(choose(10), 0);
  // A default that failed cannot be compared with.
  assertEquals(choose(null, 1), 0);
});
