/** `mor bench throughput` on models of a second. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { assertFails, morDone } from "../support/program.ts";

const args = [
  ...["bench", "throughput", "tiny-vanilla", "tiny-mor3", "--batch-size", "4", "--mean-length", "12"],
  ...["--windows", "2", "--seconds", "0.05"],
];

Deno.test("bench throughput measures models, and the routed one also in step", async () => {
  const { stdout, stderr } = await morDone([...args, "--json"]);
  assertStringIncludes(stderr, "adapter: ");
  const report = JSON.parse(stdout);
  assertEquals(report.systems.map(({ model }: { model: string }) => model), [
    "tiny-vanilla",
    "tiny-mor3",
    "tiny-mor3, in step",
  ]);
  for (const system of report.systems) {
    assert(system.tokens_per_second > 0);
    assertEquals([system.speeds.length, system.gains.length], [2, 2]);
    assert(system.occupancy > 0 && system.occupancy <= 1);
    assert(system.pages_in_use > 0 && system.pages_in_use <= 1);
    const { kernels, ...parts } = system.tick_milliseconds;
    const sum = Object.values<number>(parts).reduce((total, part) => total + part, 0);
    assertAlmostEquals(sum, kernels, 1e-9);
  }
  const [vanilla, mor, inStep] = report.systems;
  assertEquals([vanilla.gains, vanilla.flops_ratio, vanilla.mean_depth], [[1, 1], 1, null]);
  assert(mor.flops_ratio > 1 && mor.mean_depth > 1.5 && mor.mean_depth < 2.5);
  assert(inStep.occupancy < mor.occupancy);
});

Deno.test("bench throughput prints tables", async () => {
  const { stdout } = await morDone([...args, "-q"]);
  for (
    const part of [
      "tokens/s",
      "FLOPs ratio",
      "rows in use",
      "a mean tick on the GPU",
      "scheduling and routing",
    ]
  ) {
    assertStringIncludes(stdout, part);
  }
});

Deno.test("bench throughput refuses what cannot be measured", async () => {
  const cases: readonly (readonly [readonly string[], number, string])[] = [
    [["tiny", "--batch-size", "0"], 2, "--batch-size is 0"],
    [["tiny", "--seconds", "0"], 2, "--seconds is 0"],
    [["tiny", "--mean-length", "1"], 2, "--mean-length is 1"],
    [["tiny", "--mean-length", "100000"], 1, "lower --mean-length"],
    [["tiny", "--dtype", "q8_0"], 2, "presets such as tiny"],
    [["tiny", "--dtype", "q9"], 2, "q9"],
    [["no-such-model"], 1, "no-such-model"],
  ];
  for (const [more, code, part] of cases) {
    await assertFails(["bench", "throughput", ...more], { code, parts: [part] });
  }
});
