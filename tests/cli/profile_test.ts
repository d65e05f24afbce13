/** `mor profile` from end to end; what it measures is checked in tests/model/profile_test.ts. */
import { assert, assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { assertFails, folderTest, morDone } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

const SMALL = ["-p", "5", "-n", "2", "--repeats", "1"];
const SMALL_STEP = ["--train", "--batch-size", "2", "--sequence-length", "8"];

const FIELDS = [
  "test",
  "tokens",
  "tokens_per_second",
  "tokens_per_second_mean",
  "tokens_per_second_sd",
  "wall_milliseconds",
  "wall_milliseconds_samples",
  "first_run_milliseconds",
  "kernel_milliseconds",
  "kernels_of_wall",
  "outside_kernels_milliseconds",
  "kernels",
  "parts",
];

/** A kernel or a part of the model. */
interface Row {
  readonly label?: string;
  readonly part?: string;
  readonly calls: number;
  readonly milliseconds: number;
  readonly share: number;
  readonly flops: number;
  readonly gflops_per_second: number;
}

/** A section of what `mor profile --json` prints. */
interface Section {
  readonly tokens: number;
  readonly tokens_per_second: number;
  readonly wall_milliseconds: number;
  readonly kernel_milliseconds: number;
  readonly kernels_of_wall: number;
  readonly outside_kernels_milliseconds: number;
  readonly kernels: readonly Row[];
  readonly parts: readonly Row[];
}

function assertSection(section: Section): void {
  const { tokens, wall_milliseconds: wall, kernel_milliseconds: sum, kernels } = section;
  assertAlmostEquals(section.tokens_per_second, (tokens / wall) * 1000, 1e-6);
  assertAlmostEquals(sum, kernels.reduce((total, { milliseconds }) => total + milliseconds, 0), 1e-9);
  assertAlmostEquals(section.kernels_of_wall, sum / wall, 1e-9);
  assert(
    kernels.every(({ label, calls }) => /^\w+ \w+$/.test(label!) && Number.isInteger(calls) && calls > 0),
  );
  // The rows are the whole step.
  assertAlmostEquals(sum + section.outside_kernels_milliseconds, wall, 1e-9);
  const total = (rows: readonly Row[], of: (row: Row) => number): number =>
    rows.reduce((sum, row) => sum + of(row), 0);
  assertAlmostEquals(total(kernels, ({ share }) => share), sum / wall, 1e-9);
  for (const field of [({ calls }: Row) => calls, ({ flops }: Row) => flops]) {
    assertAlmostEquals(total(section.parts, field), total(kernels, field), 1e-6);
  }
  for (const { flops, milliseconds, gflops_per_second: rate } of kernels) {
    if (milliseconds > 0) assertAlmostEquals(rate, flops / milliseconds / 1e6, 1e-9);
  }
}

Deno.test("profile shows a table for the prompt, the decoding step and, if asked, the training step", async () => {
  const { stdout, stderr } = await morDone(["profile", "tiny", ...SMALL, ...SMALL_STEP]);
  const headings = [
    "prefill   a prompt of 5 tokens\n",
    "decode    one token, mean of 2 steps from 5 tokens on, mean depth ",
    "train     a step of 2 x 8 tokens\n",
  ];
  for (const part of ["adapter   ", "; readback ", "tiny, random weights; seed 1", ...headings]) {
    assertStringIncludes(stdout, part);
  }
  const rates = "GFLOP/s +GB/s +of ceiling";
  for (
    const [head, count] of [[`kernel +calls +ms +share +${rates}`, 3], [
      `part +calls +ms +share +${rates} +rows`,
      3,
    ], ["depth +steps +ms in kernels", 1]] as const
  ) {
    assertEquals(stdout.match(new RegExp(`^ {2}${head}$`, "gm"))!.length, count, stdout);
  }
  for (const test of ["pp5", "tg2", "train 2x8"]) {
    assertMatch(stdout, new RegExp(`^${test} +[\\d.]+ ± 0\\.000 +[\\d.]+ ± 0\\.0$`, "m"));
  }
  assertEquals(stdout.match(/^ {2}wall time +\d+\.\d{3} +100\.0 %/gm)!.length, 3, stdout);
  assertMatch(stdout, /^ {2}adamw update +2 +\d+\.\d{3} +\d+\.\d % +[\d.]+ +[\d.]+ +[\d.]+ %$/m);
  assertMatch(stdout, /^ {2}recursion 2, backward +\d+/m);
  for (const part of ["adapter: ", "seed: 1"]) assertStringIncludes(stderr, part);
  const again = await morDone(["profile", "tiny", ...SMALL, ...SMALL_STEP, "--recompute"]);
  assertStringIncludes(again.stdout, "a step of 2 x 8 tokens, layers run again for their gradients\n");
  const half = await morDone(["profile", "tiny", ...SMALL, ...SMALL_STEP, "--activations", "f16"]);
  assertStringIncludes(half.stdout, "a step of 2 x 8 tokens, activations stored as f16\n");
  assertMatch(half.stdout, /^ {2}cast to_f32 +\d+/m);
  const { stdout: short } = await morDone(["profile", "tiny-vanilla", ...SMALL, "--quiet"]);
  for (const part of ["\ntrain", "mean depth"]) assertEquals(short.includes(part), false, short);
});

folderTest("profile --json gives the same of a checkpoint as one object", async (folder) => {
  await morDone(smallRun(folder, "--steps", "1", "--eval-every", "0"));
  const args = ["profile", folder, ...SMALL, "--seed", "9", "--json", "--quiet"];
  const { stdout, stderr } = await morDone([...args, ...SMALL_STEP]);
  assertEquals(stderr, "");
  const { prefill, decode, train, adapter, is_software: _, ceilings, record_milliseconds: record, ...rest } =
    JSON
      .parse(stdout);
  assert(record > 0 && ceilings.gflops_per_second > 0 && ceilings.gigabytes_per_second > 0);
  assert(adapter.length > 0);
  assert(["synchronous", "awaited"].includes(rest.readback));
  assertEquals({ ...rest, readback: null }, {
    readback: null,
    model: folder,
    random_weights: false,
    seed: 9,
    repeats: 1,
  });
  const decodeFields = ["context", "steps", "mean_depth"];
  const trainFields = ["batch_size", "sequence_length", "recompute", "activations", "record_milliseconds"];
  assertEquals(Object.keys(prefill), FIELDS);
  assertEquals(Object.keys(decode), [...decodeFields, ...FIELDS, "depths"]);
  assertEquals(Object.keys(train), [...trainFields, ...FIELDS]);
  assertEquals([prefill.test, decode.test, train.test], ["pp5", "tg2", "train 2x8"]);
  assertEquals([prefill.tokens, decode.tokens, train.tokens], [5, 1, 16]);
  assertEquals([decode.context, decode.steps], [5, 2]);
  for (const section of [prefill, decode, train]) assertSection(section);
});

folderTest("profile writes a timeline and a page beside its tables", async (folder) => {
  const [trace, page] = [join(folder, "new", "trace.json"), join(folder, "page.html")];
  const { stdout, stderr } = await morDone([
    ...["profile", "tiny", ...SMALL, "--markdown"],
    ...["--trace", trace, "--html", page],
  ]);
  assertStringIncludes(stdout, "| test | ms | tokens/s |\n| --- | ---: | ---: |\n| pp5 | ");
  for (const path of [trace, page]) assertStringIncludes(stderr, path);
  assert(JSON.parse(await Deno.readTextFile(trace)).traceEvents.length > 50);
  assertStringIncludes(await Deno.readTextFile(page), "<svg");
  const lost = ["profile", "tiny", ...SMALL, "--trace", join(page, "trace.json")];
  await assertFails(lost, { code: 1, parts: ["page.html"] });
});

Deno.test("profile lowers its own prompt to the model's positions and says so, but not the user's", async () => {
  const model = fromFileUrl(new URL("../../fixtures/golden/vanilla", import.meta.url));
  const { stderr, stdout } = await morDone(["profile", model, "-n", "2", "--repeats", "1", "--json"]);
  assertStringIncludes(stderr, "prompt: 126 tokens instead of 512, since the model has 128 positions");
  assertEquals(JSON.parse(stdout).decode.context, 126);
  const parts = ["100 tokens and 32 steps", "128 positions", "lower -p or -n"];
  await assertFails(["profile", model, "-p", "100"], { code: 1, parts });
  await assertFails(["profile", model, "-n", "128"], { code: 1, parts: ["128 steps", "128 positions"] });
});

Deno.test("profile refuses unknown models and numbers out of range", async () => {
  await assertFails(["profile", "tinny"], { code: 1, parts: ['"tinny"', "folder", "preset"] });
  const wrong = [
    [["-p", "0"], ["-p is 0", "1 or more"]],
    [["-n", "-2"], ["-n is -2", "1 or more"]],
    [["-n", "2.5"], ["--tokens", '"2.5"']],
    [["--repeats", "0"], ["--repeats is 0", "1 or more"]],
    [["--train", "--batch-size", "0"], ["--batch-size is 0", "1 or more"]],
    [["--json", "--csv"], ["--json and --csv exclude each other"]],
    [["--batch-size", "2"], ["--batch-size needs --train"]],
    [["--sequence-length", "8"], ["--sequence-length needs --train"]],
    [["--recompute"], ["--recompute needs --train"]],
    [["--activations", "f16"], ["--activations needs --train"]],
    [["--train", "--activations", "f8"], ['--activations is "f8"', "f32, f16"]],
  ] as const;
  for (const [flags, parts] of wrong) await assertFails(["profile", "tiny", ...flags], { code: 2, parts });
});
