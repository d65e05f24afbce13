import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertMatch,
  assertRejects,
  assertThrows,
} from "@std/assert";
import { ConfigError } from "../../model/config.ts";
import { UsageError } from "./arguments.ts";
import { parseJaxJsArgs } from "./jax_js.ts";
import { compare, disagreement, largestDifference, type Program } from "./jax_js_agreement.ts";
import { startJax } from "./jax_js_process.ts";
import type { TimedStep } from "./training.ts";

function step(ms: number, loss: number, gradNorm = 1): TimedStep {
  return { ms, loss, gradNorm };
}

Deno.test("parseJaxJsArgs fills in what is not given", () => {
  assertEquals(parseJaxJsArgs(["--jax", "peer"]), {
    folder: "peer",
    repeats: 7,
    warmUp: 5,
    hasWebgpu: false,
    isJson: false,
  });
  assertEquals(parseJaxJsArgs(["--webgpu", "--jax=peer", "--repeats", "2", "--warm-up", "1", "--json"]), {
    folder: "peer",
    repeats: 2,
    warmUp: 1,
    hasWebgpu: true,
    isJson: true,
  });
});

Deno.test("parseJaxJsArgs says what is wrong", () => {
  const cases: [args: string[], message: string][] = [
    [[], "wanted --jax FOLDER"],
    [["--jax"], "argument missing"],
    [["peer"], "Unexpected argument 'peer'"],
    [["--jax", "peer", "--repeats", "0"], '--repeats is "0", wanted a whole number from 1 on'],
    [["--jax", "peer", "--warm-up", "1.5"], '--warm-up is "1.5"'],
    [["--jax", "peer", "--gpu"], "Unknown option '--gpu'"],
  ];
  for (const [args, message] of cases) assertThrows(() => parseJaxJsArgs(args), UsageError, message);
});

Deno.test("startJax says what to install in a folder without jax-js", async () => {
  const start = (): Promise<unknown> => startJax({ folder: "nowhere", backend: "wasm", weights: "none" });
  await assertRejects(start, ConfigError, "npm install @jax-js/jax@0.1.25");
});

Deno.test("largestDifference finds the worst of losses and gradient norms, as a part of the expected", () => {
  const expected = [step(1, 4, 2), step(1, -2, 8)];
  assertEquals(largestDifference(expected, expected), 0);
  assertAlmostEquals(largestDifference(expected, [step(9, 4.04, 2), step(9, -2, 8)]), 0.01);
  assertAlmostEquals(largestDifference(expected, [step(9, 4.04, 2), step(9, -2, 6)]), 0.25);
});

Deno.test("disagreement names the program that does something else", () => {
  const ours = { name: "ours", steps: [step(1, 4), step(1, 2)] };
  const same = { name: "same", steps: [step(9, 4.003), step(9, 2)] };
  assertEquals(disagreement([ours, same, ours]), null);
  const other = { name: "other", steps: [step(9, 4), step(9, 2.1)] };
  const reason = disagreement([ours, same, other])!;
  assertMatch(reason, /^other does not do the same: losses 4\.00000, 2\.10000, wanted 4\.00000, 2\.00000;/);
});

Deno.test("disagreement takes nothing that is not finite for the same", () => {
  for (const value of [NaN, Infinity]) {
    const broken: Program = { name: "broken", steps: [step(1, 4), step(1, value)] };
    assert(disagreement([{ name: "ours", steps: [step(1, 4), step(1, 2)] }, broken]));
    assert(disagreement([broken, broken]));
  }
});

Deno.test("compare checks the first steps and times the last, pair by pair", () => {
  const programs = [
    { name: "ours", steps: [step(900, 4), step(900, 3), step(100, 2), step(200, 1)] },
    { name: "other", steps: [step(900, 4), step(900, 3.3), step(50, 9), step(600, 9)] },
  ];
  const [ours, other] = compare(programs, { checked: 2, repeats: 2, tokens: 10 });
  assertEquals(ours, {
    name: "ours",
    losses: [4, 3],
    gradientNorms: [1, 1],
    largestDifference: 0,
    tokensPerSecond: [100, 50],
    firstOverThis: [1, 1],
  });
  assertAlmostEquals(other!.largestDifference, 0.1);
  assertEquals(other!.firstOverThis, [0.5, 3]);
});
