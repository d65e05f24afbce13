import { assertAlmostEquals, assertEquals } from "@std/assert";
import { defaultSchedule, learningRateAt, type Schedule } from "../../model/schedule.ts";

const schedule: Schedule = { learningRate: 0.5, steps: 20, warmupSteps: 4, decaySteps: 5 };

Deno.test("learningRateAt rises, stays and falls", () => {
  const rates = Array.from({ length: 20 }, (_, step) => learningRateAt(schedule, step) / 0.5);
  const wanted = [0.25, 0.5, 0.75, ...Array<number>(13).fill(1), 0.8, 0.6, 0.4, 0.2];
  rates.forEach((rate, step) => assertAlmostEquals(rate, wanted[step]!, 1e-12, `step ${step}`));
});

Deno.test("learningRateAt moves at every step of a run and never goes below zero", () => {
  for (const steps of [1, 2, 3, 7, 100]) {
    const run = defaultSchedule({ learningRate: 1, steps });
    for (let step = 0; step < steps; step++) assertEquals(learningRateAt(run, step) > 0, true);
    for (const past of [steps, steps + 1, 10 * steps]) assertEquals(learningRateAt(run, past), 0);
  }
});

Deno.test("learningRateAt is constant without warm-up and decay", () => {
  const constant = { ...schedule, warmupSteps: 0, decaySteps: 0 };
  assertEquals([0, 7, 19].map((step) => learningRateAt(constant, step)), [0.5, 0.5, 0.5]);
});

Deno.test("learningRateAt takes the lower of two slopes that overlap", () => {
  const steep = { learningRate: 1, steps: 4, warmupSteps: 4, decaySteps: 4 };
  assertEquals([0, 1, 2, 3].map((step) => learningRateAt(steep, step)), [0.25, 0.5, 0.5, 0.25]);
});

Deno.test("defaultSchedule has the paper's proportions", () => {
  assertEquals(defaultSchedule({ learningRate: 3e-3, steps: 9438 }), {
    learningRate: 3e-3,
    steps: 9438,
    warmupSteps: 472,
    decaySteps: 1888,
  });
});
