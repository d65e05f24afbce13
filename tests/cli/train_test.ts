/** `mor train` from end to end: what a run writes, repeats, resumes and reports. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import {
  assertFails,
  corpus,
  folderTest,
  morDone,
  outcomeOf,
  programCommand,
  start,
  waitFor,
} from "../support/program.ts";
import {
  assertSameCheckpoints,
  readMetrics,
  savedStep,
  SMALL_RUN_STEPS,
  SMALL_RUN_TOKENS,
  smallRun,
  withoutSpeed,
  writeConfig,
} from "../support/small_run.ts";

/** The bytes of GPU memory that a plan or a run names first. */
function gpuBytes(text: string): number {
  return Number(/GPU memory.*\((\d+) bytes\)/.exec(text)?.[1]);
}

/** A plan's line of that name, without it. */
function foretold(plan: string, name: string): string {
  return new RegExp(`^${name} +(.*)$`, "m").exec(plan)![1]!;
}

folderTest("train writes a checkpoint and a line of metrics for each step", async (folder) => {
  const { stdout, stderr } = await morDone(smallRun(folder));

  assertEquals(stdout, "");
  for (const part of ["adapter: ", "seed: 1", "step 3: held-out loss", "peak GPU memory"]) {
    assertStringIncludes(stderr, part);
  }
  assertEquals(await savedStep(folder), SMALL_RUN_STEPS);
  const metrics = await readMetrics(folder);
  assertEquals(metrics.map(({ step }) => step), Array.from({ length: SMALL_RUN_STEPS }, (_, i) => i + 1));
  const always = [
    "step",
    "tokens",
    "loss",
    "loss_ce",
    "loss_auxiliary",
    "loss_z",
    "learning_rate",
    "grad_norm",
    "tokens_per_second",
    "depth_fractions",
    "selection_accuracy",
    "dead_tokens",
    "max_violation",
    "depth_entropy",
  ];
  for (const line of metrics) {
    const isEvaluated = line.step % 3 === 0;
    assertEquals(Object.keys(line), [...always, ...isEvaluated ? ["val_loss", "val_depth_fractions"] : []]);
    assertEquals(line.tokens, line.step * SMALL_RUN_TOKENS);
    for (const [name, value] of Object.entries(line)) {
      assert([value].flat().every(Number.isFinite), `${name} is ${value}`);
    }
    // Depths 0 to 3 of 32 tokens, of which the three steps keep 32, 21 and 10.
    const load = [11 / 32, 11 / 32, 10 / 32];
    assertEquals(line.depth_fractions, [0, ...load]);
    assertAlmostEquals(Number(line.max_violation), 3 * (11 / 32) - 1, 1e-6);
    const entropy = load.reduce((sum, part) => sum - part * Math.log(part), 0);
    assertAlmostEquals(Number(line.depth_entropy), entropy, 1e-6);
    // Two sequences send 10 to 20 of the 32 positions to the last step.
    for (
      const [name, from, to] of [["selection_accuracy", 0, 1], ["dead_tokens", 12 / 32, 22 / 32]] as const
    ) {
      assert(Number(line[name]) >= from && Number(line[name]) <= to, `${name} is ${line[name]}`);
    }
  }
  assert(metrics.at(-1)!.loss < metrics[0]!.loss, "the loss does not fall");
});

folderTest(
  "train stopped after step 3 and resumed equals an uninterrupted run in every bit",
  async (folder) => {
    const [straight, parts] = [join(folder, "straight"), join(folder, "parts")];
    await morDone(smallRun(straight));
    const { stderr } = await morDone(smallRun(parts, "--stop-after", "3"));
    assertEquals(await savedStep(parts), 3);
    assertStringIncludes(stderr, "3/3");
    const resumed = await morDone(["train", "--out", parts, "--resume"]);

    assertStringIncludes(resumed.stderr, "resumed at step 3 of 6");
    await assertSameCheckpoints(parts, straight);
    // The cut ends the first part's steps with an evaluation where the straight run has one too.
    assertEquals(withoutSpeed(await readMetrics(parts)), withoutSpeed(await readMetrics(straight)));
    const again = await morDone(["train", "--out", parts, "--resume"]);
    assertStringIncludes(again.stderr, "nothing to train");
    await assertSameCheckpoints(parts, straight);
  },
);

folderTest("train repeats itself with the same seed and only then", async (folder) => {
  const runs = [["a", "5"], ["b", "5"], ["c", "6"]] as const;
  const [first, second, other] = await Promise.all(runs.map(async ([name, seed]) => {
    const out = join(folder, name);
    assertStringIncludes((await morDone(smallRun(out, "--seed", seed))).stderr, `seed: ${seed}`);
    return withoutSpeed(await readMetrics(out));
  }));
  assertEquals(second, first);
  assert(other![0]!.loss !== first![0]!.loss);
  await assertSameCheckpoints(join(folder, "b"), join(folder, "a"));
});

folderTest("train --config gives settings, and flags win over it", async (folder) => {
  const [config, out] = [join(folder, "run.json"), join(folder, "out")];
  const settings = {
    model: "tiny",
    data: corpus,
    batch_size: 2,
    sequence_length: 32,
    steps: 6,
    seed: 5,
    eval_every: 0,
  };
  await Deno.writeTextFile(config, JSON.stringify(settings));
  const { stderr } = await morDone([
    "train",
    "--config",
    config,
    "--out",
    out,
    "--steps",
    "2",
    "--seed",
    "7",
  ]);

  assertStringIncludes(stderr, "seed: 7");
  const metrics = await readMetrics(out);
  assertEquals(metrics.map(({ tokens }) => tokens), [64, 128]);
  assertEquals(metrics.some((line) => "val_loss" in line), false);
});

folderTest("train --dry-run trains nothing and foretells the memory", async (folder) => {
  const out = join(folder, "out");
  const { stdout: plan } = await morDone(smallRun(out, "--dry-run"));
  assertEquals(await Deno.stat(out).catch(() => null), null);
  const { stderr } = await morDone(smallRun(out, "--steps", "3"));

  const [planned, met] = [gpuBytes(plan), gpuBytes(stderr)];
  assert(Math.abs(planned - met) <= 0.1 * met, `planned ${planned} bytes, the run took ${met}`);
  for (const part of ["parameters", "FLOPs per token", "384 (64 a step, 6 steps)"]) {
    assertStringIncludes(plan, part);
  }
  const { stdout: less } = await morDone(smallRun(out, "--dry-run", "--recompute"));
  assertStringIncludes(less, "forward and backward, besides what --recompute runs again\n");
  assertEquals(foretold(plan, "with --recompute"), foretold(less, "GPU memory"));
  assert(gpuBytes(less) < planned, `${gpuBytes(less)} bytes with --recompute, ${planned} without`);

  const { stdout: half } = await morDone(smallRun(out, "--dry-run", "--activations", "f16"));
  assertEquals(foretold(plan, "with --activations f16"), foretold(half, "GPU memory"));
  assert(gpuBytes(half) < planned, `${gpuBytes(half)} bytes in f16, ${planned} in f32`);
  const { stdout: both } = await morDone(
    smallRun(out, "--dry-run", "--activations", "f16", "--recompute"),
  );
  for (const [one, other] of [[half, "with --recompute"], [less, "with --activations f16"]] as const) {
    assertEquals(foretold(one, other), foretold(both, "GPU memory"));
  }
  assertEquals(both.includes("\nwith "), false, both);
});

folderTest(
  "train --recompute takes less memory to the same end; a resumed run may switch it",
  async (folder) => {
    const [kept, switched] = [join(folder, "kept"), join(folder, "switched")];
    const config = join(folder, "run.json");
    await Deno.writeTextFile(config, '{"recompute": true}');
    const straight = gpuBytes((await morDone(smallRun(kept))).stderr);
    const parts = [
      smallRun(switched, "--stop-after", "2", "--recompute"),
      ["train", "--out", switched, "--resume", "--stop-after", "3"],
      ["train", "--out", switched, "--resume", "--stop-after", "4", "--no-recompute"],
      ["train", "--out", switched, "--resume", "--stop-after", "5", "--config", config],
      ["train", "--out", switched, "--resume", "--config", config, "--no-recompute"],
    ];
    const isLess: boolean[] = [];
    for (const part of parts) isLess.push(gpuBytes((await morDone(part)).stderr) < straight);
    assertEquals(isLess, [true, true, false, true, false]);
    await assertSameCheckpoints(switched, kept);
  },
);

folderTest("train --activations f16 takes less memory, and a resumed run takes it over", async (folder) => {
  const [f32, straight, resumed] = ["f32", "straight", "resumed"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const config = join(folder, "run.json");
  await Deno.writeTextFile(config, '{"activations": "f16"}');
  const whole = gpuBytes((await morDone(smallRun(f32))).stderr);
  const stored = gpuBytes((await morDone(smallRun(straight, "--activations", "f16"))).stderr);
  assert(stored < whole, `${stored} bytes in f16, ${whole} in f32`);
  await morDone(smallRun(resumed, "--stop-after", "2", "--config", config));
  const resume = ["train", "--out", resumed, "--resume"];
  const parts = ["Cannot resume", 'is "f32", the run was started with "f16"; give the same'];
  await assertFails([...resume, "--activations", "f32"], { code: 1, parts });
  // With f16 it changes what is rounded.
  const again = ["recompute is true, the run was started with false"];
  await assertFails([...resume, "--recompute"], { code: 1, parts: again });
  await morDone(resume);
  await assertSameCheckpoints(resumed, straight);
  await assertFails(smallRun(join(folder, "other"), "--activations", "bf16"), {
    code: 2,
    parts: ["--activations", "bf16", "f32", "f16"],
  });
  const last = [straight, f32].map(async (out) => (await readMetrics(out)).at(-1)!.loss);
  const [met, wanted] = await Promise.all(last) as [number, number];
  assertAlmostEquals(met / wanted, 1, 0.01);
});

folderTest("train reads JSONL by --text-field and folders in name order", async (folder) => {
  const text = await Deno.readTextFile(corpus);
  const [head, tail] = [text.slice(0, 3000), text.slice(3000)];
  const texts = join(folder, "texts");
  await Deno.mkdir(texts);
  await Deno.writeTextFile(join(texts, "1.txt"), head);
  await Deno.writeTextFile(join(texts, "2.md"), tail);
  await Deno.writeTextFile(join(texts, "3.bin"), "not a text");
  const jsonl = join(folder, "texts.jsonl");
  await Deno.writeTextFile(jsonl, [head, tail].map((body) => JSON.stringify({ body }) + "\n").join("\n"));

  const sizes = ["--batch-size", "2", "--sequence-length", "32", "--steps", "2"];
  const data = [[texts], [join(texts, "1.txt"), join(texts, "2.md")], [jsonl]];
  const losses = await Promise.all(data.map(async (paths, i) => {
    const out = join(folder, `out${i}`);
    const given = paths.flatMap((path) => ["--data", path]);
    await morDone(["train", "--model", "tiny", ...given, "--text-field", "body", "--out", out, ...sizes]);
    return withoutSpeed(await readMetrics(out));
  }));
  assertEquals(losses[1], losses[0]);
  assertEquals(losses[2], losses[0]);
});

folderTest("train --sample-every shows what the model writes, --quiet nothing", async (folder) => {
  const sampled = [
    ...["--steps", "1", "--eval-every", "0"],
    "--sample-every",
    "1",
    "--sample-prompt",
    "Whale: ",
  ];
  const { stderr } = await morDone(smallRun(join(folder, "a"), ...sampled));
  assert(stderr.split("Whale: ")[1]!.length > 20, stderr);
  const quiet = await morDone(smallRun(join(folder, "b"), ...sampled, "--quiet"));
  assertEquals({ ...quiet }, { code: 0, stdout: "", stderr: "" });
});

folderTest("train samples no further than the model's positions", async (folder) => {
  const model = await writeConfig(join(folder, "config.json"), { change: { max_position_embeddings: 40 } });
  const args = ["--model", model, "--steps", "1", "--eval-every", "0", "--sample-every", "1"];
  await morDone(smallRun(join(folder, "out"), ...args));
});

folderTest("train saves on Ctrl-C, exits with 130 and can be resumed", async (folder) => {
  const args = smallRun(folder, "--steps", "5000", "--eval-every", "0", "--save-every", "5000");
  const child = start(programCommand(args));
  await waitFor(async () => (await readMetrics(folder)).length >= 2);
  child.kill("SIGINT");
  const { code, stdout, stderr } = await outcomeOf(child);

  assertEquals({ code, stdout }, { code: 130, stdout: "" }, stderr);
  const step = await savedStep(folder);
  assertEquals((await readMetrics(folder)).at(-1)!.step, step);
  assertStringIncludes(stderr, `interrupted at step ${step}, saved in ${folder}; --resume goes on`);
  await morDone(["generate", folder, "-p", "x", "-n", "1"]);
  const resumed = await morDone(["train", "--out", folder, "--resume", "--stop-after", String(step + 2)]);
  assertStringIncludes(resumed.stderr, `resumed at step ${step} of 5000`);
  assertEquals(
    (await readMetrics(folder)).map((line) => line.step),
    Array.from({ length: step + 2 }, (_, i) => i + 1),
  );
});
