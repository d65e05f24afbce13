/** `mor profile` from end to end; what it measures is checked in tests/model/profile_test.ts. */
import { assert, assertAlmostEquals, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { type ProfileReport, reportJson, reportText } from "../../cli/profile_report.ts";
import { assertFails, folderTest, morDone } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

const SMALL = ["-p", "5", "-n", "2", "--repeats", "1"];
const SMALL_STEP = ["--train", "--batch-size", "2", "--sequence-length", "8"];

const FIELDS = ["tokens", "tokens_per_second", "wall_milliseconds"];
const KERNEL_FIELDS = ["kernel_milliseconds", "kernels_of_wall", "kernels"];

/** A section of what `mor profile --json` prints. */
interface Section {
  readonly tokens: number;
  readonly tokens_per_second: number;
  readonly wall_milliseconds: number;
  readonly kernel_milliseconds: number;
  readonly kernels_of_wall: number;
  readonly kernels: readonly { label: string; calls: number; milliseconds: number; share: number }[];
}

function assertSection(section: Section): void {
  const { tokens, wall_milliseconds: wall, kernel_milliseconds: sum, kernels } = section;
  assertAlmostEquals(section.tokens_per_second, (tokens / wall) * 1000, 1e-6);
  assertAlmostEquals(sum, kernels.reduce((total, { milliseconds }) => total + milliseconds, 0), 1e-9);
  assertAlmostEquals(section.kernels_of_wall, sum / wall, 1e-9);
  assert(
    kernels.every(({ label, calls }) => /^\w+ \w+$/.test(label) && Number.isInteger(calls) && calls > 0),
  );
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
  assertEquals(stdout.match(/^ {2}kernel +calls +ms +share$/gm)!.length, 3, stdout);
  assertEquals(
    stdout.match(/^ {2}sum, [\d.]+ % of the wall time +\d+ +[\d.]+ +100\.0 %$/gm)!.length,
    3,
    stdout,
  );
  assertMatch(stdout, /^ {2}adamw update +2 +\d+\.\d{3} +\d+\.\d %$/m);
  for (const part of ["adapter: ", "seed: 1"]) assertStringIncludes(stderr, part);
  const { stdout: short } = await morDone(["profile", "tiny-vanilla", ...SMALL, "--quiet"]);
  for (const part of ["\ntrain", "mean depth"]) assertEquals(short.includes(part), false, short);
});

folderTest("profile --json gives the same of a checkpoint as one object", async (folder) => {
  await morDone(smallRun(folder, "--steps", "1", "--eval-every", "0"));
  const args = ["profile", folder, ...SMALL, "--seed", "9", "--json", "--quiet"];
  const { stdout, stderr } = await morDone([...args, ...SMALL_STEP]);
  assertEquals(stderr, "");
  const { prefill, decode, train, adapter, is_software: _, ...rest } = JSON.parse(stdout);
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
  const trainFields = ["batch_size", "sequence_length"];
  assertEquals(Object.keys(prefill), [...FIELDS, ...KERNEL_FIELDS]);
  assertEquals(Object.keys(decode), [...decodeFields, ...FIELDS, ...KERNEL_FIELDS]);
  assertEquals(Object.keys(train), [...trainFields, ...FIELDS, ...KERNEL_FIELDS]);
  assertEquals([prefill.tokens, decode.tokens, train.tokens], [5, 1, 16]);
  assertEquals([decode.context, decode.steps], [5, 2]);
  for (const section of [prefill, decode, train]) assertSection(section);
});

Deno.test("a report without timestamps says so in one line and gives wall times", () => {
  const profile = { tokens: 10, wallMilliseconds: 20, kernels: null };
  const report: ProfileReport = {
    adapter: { description: "an adapter", vendor: "", isSoftware: false, subgroupSize: null },
    readback: "awaited",
    model: "a-model",
    hasRandomWeights: false,
    seed: 3,
    repeats: 5,
    context: 10,
    steps: 4,
    inference: { prefill: profile, decode: { ...profile, tokens: 1 }, meanDepth: null },
    training: null,
  };
  assertEquals(
    reportText(report),
    `adapter   an adapter; readback awaited
model     a-model; seed 3
times     median of 5
kernels   not timed: the adapter grants no timestamps

prefill   a prompt of 10 tokens
          20.000 ms, 500 tokens/s

decode    one token, mean of 4 steps from 10 tokens on
          20.000 ms, 50.0 tokens/s
`,
  );
  const { prefill } = reportJson(report) as { prefill: Section };
  assertEquals(Object.keys(prefill), FIELDS);
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
    [["--batch-size", "2"], ["--batch-size needs --train"]],
    [["--sequence-length", "8"], ["--sequence-length needs --train"]],
  ] as const;
  for (const [flags, parts] of wrong) await assertFails(["profile", "tiny", ...flags], { code: 2, parts });
});
