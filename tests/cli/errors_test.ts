/** Whatever goes wrong: one line that says what, what was met, what was wanted and what to do, and the exit code. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { assertFails, corpus, folderTest, mor, morDone, programCommand, run } from "../support/program.ts";
import { checkpointTensors, savedStep, smallRun, writeConfig } from "../support/small_run.ts";

const USAGE = 2;

/** No driver is found where this points. */
const NO_DRIVER = { VK_DRIVER_FILES: "/nonexistent", VK_ICD_FILENAMES: "/nonexistent" };

/** Fields of a config.json. */
type Json = Record<string, unknown>;

Deno.test({
  name: "doctor and every command that computes exit with 3 when no adapter answers",
  // Only Vulkan's loader can be told to find nothing.
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    const parts = ["No GPU adapter answers", "install", "mor doctor"];
    const folder = await Deno.makeTempDir();
    await assertFails(["doctor"], { env: NO_DRIVER, code: 3, parts });
    await assertFails(smallRun(folder), { env: NO_DRIVER, code: 3, parts });
    assertEquals(Array.from(Deno.readDirSync(folder)), [], "a run without adapter left something behind");
    await Deno.remove(folder);
    const { code, stdout } = await mor(["doctor", "--json"], { env: NO_DRIVER });
    assertEquals({ code, adapter: JSON.parse(stdout).adapter }, { code: 3, adapter: null });
    // These two need none.
    await morDone(["inspect", "tiny"], { env: NO_DRIVER });
    await morDone([...smallRun(folder), "--dry-run"], { env: NO_DRIVER });
  },
});

folderTest("train refuses data that is missing, empty or too short", async (folder) => {
  const out = join(folder, "out");
  const fails = (data: string, parts: readonly string[], ...more: string[]): Promise<string> =>
    assertFails(smallRun(out, "--data", data, ...more), { code: 1, parts: [data, ...parts] });
  await fails(join(folder, "nothing.txt"), ["Cannot read data", "no such file or folder"]);
  await fails(folder, ["no .txt, .md or .jsonl file in the folder"]);
  const empty = join(folder, "empty.txt");
  await Deno.writeTextFile(empty, "");
  await fails(empty, ["Cannot use", "the file is empty"]);
  const lines = join(folder, "lines.jsonl");
  await Deno.writeTextFile(lines, '{"text": "a whale"}\n{"body": "a sea"}\n');
  await fails(lines, [":2: ", 'no text under "text"', "--text-field"]);
  await Deno.writeTextFile(lines, '{"text": "a whale"}\n{"text": \n');
  await fails(lines, [":2: the line is not JSON"]);
  const short = join(folder, "short.txt");
  await Deno.writeTextFile(short, "a whale");
  await assertFails(smallRun(out, "--data", short), {
    code: 1,
    parts: ["8 tokens", "one sequence needs 33", "more text or lower --sequence-length"],
  });
  assertEquals(await Deno.stat(out).catch(() => null), null, "a refused run left a folder");
});

folderTest("train refuses models that it does not know or cannot build", async (folder) => {
  const out = join(folder, "out");
  const path = join(folder, "model.json");
  await assertFails(smallRun(out, "--model", "tinny"), {
    code: USAGE,
    parts: ['"tinny"', "config.json", "360m"],
  });
  await assertFails(smallRun(out, "--model", path), { code: 1, parts: [path, "no such file"] });
  await Deno.writeTextFile(path, "{");
  await assertFails(smallRun(out, "--model", path), { code: 1, parts: [path, "not JSON"] });

  const router = { kind: "expert_choice", capacity: 0.5 };
  const recursion = { sharing: "middle_cycle", num_recursions: 3, block_layers: 1 };
  const wrong: readonly (readonly [Json, readonly string[]])[] = [
    [{ router }, ['unknown field "router.capacity"', "correct its name"]],
    [{ num_attention_heads: 3 }, ["num_attention_heads 3 is not a multiple", "num_key_value_heads 2"]],
    [{ hidden_size: 66 }, ["hidden_size is 66", "multiple of 4"]],
    [{ num_hidden_layers: 7, recursion }, ["num_hidden_layers is 7", "unrolls to 5"]],
    [{ vocab_size: "many" }, ['"vocab_size"', "number"]],
  ];
  for (const [change, parts] of wrong) {
    const heads = "num_attention_heads" in change ? { num_key_value_heads: 2 } : {};
    await writeConfig(path, { change: { ...heads, ...change } });
    await assertFails(smallRun(out, "--model", path), { code: 1, parts: [path, ...parts] });
  }
});

folderTest("train refuses quickly what cannot fit in memory", async (folder) => {
  const model = await writeConfig(join(folder, "big.json"), {
    preset: "1.7b",
    change: { tokenizer: "byte" },
  });
  const data = join(folder, "long.txt");
  await Deno.writeTextFile(data, (await Deno.readTextFile(corpus)).repeat(20));
  const out = join(folder, "out");
  const sizes = ["--batch-size", "1024", "--sequence-length", "2048", "--validation-fraction", "0"];
  const started = performance.now();
  const big = smallRun(out, "--model", model, "--data", data, ...sizes);
  const advice = "lower --batch-size or --sequence-length";
  await assertFails(big, {
    code: 4,
    parts: ["Cannot ", "iB", `give --activations f16 or --recompute, ${advice}`],
  });
  assert(performance.now() - started < 10_000, "the refusal took longer than ten seconds");
  assertEquals(await Deno.stat(out).catch(() => null), null, "a refused run left a folder");
  const half = ["--activations", "f16"];
  await assertFails([...big, "--recompute"], { code: 4, parts: [`free; give --activations f16, ${advice}`] });
  await assertFails([...big, ...half], { code: 4, parts: [`are free; give --recompute, ${advice}`] });
  await assertFails([...big, ...half, "--recompute"], { code: 4, parts: [`are free; ${advice}`] });
  const tooMany = ["--batch-size", String(2 ** 30)];
  await assertFails(smallRun(out, ...tooMany), { code: 4, parts: [String(2 ** 30), "lower --batch-size"] });
});

folderTest("a run that goes on without enough memory is told only what it may change", async (folder) => {
  const run = join(folder, "run");
  await morDone(smallRun(run, "--steps", "2", "--eval-every", "0"));
  const model = await writeConfig(join(folder, "big.json"), {
    preset: "1.7b",
    change: { tokenizer: "byte" },
  });
  const data = join(folder, "long.txt");
  await Deno.writeTextFile(data, (await Deno.readTextFile(corpus)).repeat(20));
  const sizes = ["--batch-size", "1024", "--sequence-length", "2048", "--validation-fraction", "0.2"];
  const big = ["train", "--out", run, "--resume", "--dry-run", "--model", model, "--data", data, ...sizes];
  const others = "free memory or go on where there is more\n";
  async function assertAdvised(advice: string, ...more: readonly string[]): Promise<void> {
    const { code, stderr } = await mor(["--quiet", ...big, ...more]);
    assertEquals(code, 4, stderr);
    assert(stderr.endsWith(`are free; ${advice}`), stderr);
  }
  await assertAdvised(`give --recompute or ${others}`);
  await assertAdvised(others, "--recompute");
  await assertAdvised(`give --eval-every 0 or ${others}`, "--recompute", "--eval-every", "5");
  await assertAdvised(others, "--activations", "f16");
});

folderTest("a damaged checkpoint is refused by name", async (folder) => {
  await morDone(smallRun(folder, "--steps", "2", "--eval-every", "0"));
  const weights = join(folder, "model.safetensors");
  const whole = await Deno.readFile(weights);
  const generate = ["generate", folder, "-p", "x", "-n", "1"];

  await Deno.writeFile(weights, whole.subarray(0, whole.length - 1000));
  const size = String(whole.length - 1000);
  await assertFails(generate, { code: 1, parts: [weights, "truncated", size, String(whole.length)] });
  await assertFails(["train", "--out", folder, "--resume"], { code: 1, parts: [weights, "truncated"] });
  await Deno.writeFile(weights, whole.subarray(0, 5));
  await assertFails(generate, { code: 1, parts: [weights, "5 bytes"] });

  await Deno.writeFile(weights, whole);
  const config = join(folder, "config.json");
  await writeConfig(config, { change: { intermediate_size: 96 } });
  const parts = [weights, "mlp.", "has shape (176, 64)", "expected (96, 64)"];
  await assertFails(generate, { code: 1, parts });
  await Deno.remove(weights);
  await assertFails(generate, { code: 1, parts: [weights, "no such file"] });
});

folderTest("train --resume refuses a changed setting and a changed text", async (folder) => {
  const [out, other] = [join(folder, "out"), join(folder, "other.txt")];
  await morDone(smallRun(out, "--stop-after", "2"));
  await assertFails(smallRun(out), {
    code: 1,
    parts: [out, "holds a checkpoint", "--resume", "another --out"],
  });

  const resume = ["train", "--out", out, "--resume"];
  const changes = [
    [["--seed", "8"], ["seed is 8", "started with 1"]],
    [["--steps", "9"], ["steps is 9", "started with 6"]],
    [["--batch-size", "3"], ["batchSize is 3", "started with 2"]],
    [["--model", "tiny-mor2"], ["model.", "the run was started with"]],
  ] as const;
  for (const [flags, parts] of changes) {
    await assertFails([...resume, ...flags], { code: 1, parts: [out, ...parts, "start a new run"] });
  }
  await Deno.writeTextFile(other, (await Deno.readTextFile(corpus)).replace("Ishmael", "Ishmail"));
  await assertFails([...resume, "--data", other], { code: 1, parts: [out, "the text is not the one"] });
  await assertFails(["train", "--out", folder, "--resume"], { code: 1, parts: [folder, "no checkpoint"] });
  assertEquals(await savedStep(out), 2);
  await morDone(resume);
});

Deno.test("wrong usage is refused with the value met, the value wanted and exit code 2", async () => {
  const generate = ["generate", "model", "-p", "x"];
  const forward = ["forward", "model", "--ids", "x"];
  const wrong: readonly (readonly [readonly string[], readonly string[]])[] = [
    [["trian"], ['Unknown command "trian"', 'Did you mean command "train"?']],
    [["train", "--stepz", "3"], ['Unknown option "--stepz"', 'Did you mean option "--steps"?']],
    [["train", "--steps"], ['Missing value for option "--steps"']],
    [["train", "--steps", "3.5"], ["--steps", '"integer"', '"3.5"']],
    [["train", "--learning-rate", "fast"], ["--learning-rate", '"number"', '"fast"']],
    [["train", "--steps", "0"], ["--steps is 0", ">0"]],
    [["train", "--validation-fraction", "0.9"], ["--validation-fraction is 0.9", "0.5"]],
    [["train", "--steps", "3"], ["Missing --model"]],
    [["train", "--model", "tiny", "--out", "out"], ["Missing --data"]],
    [["train", "--model", "tiny", "--data", corpus], ["Missing --out"]],
    [["train", "--init-method", "upper"], ["--init-method needs --init"]],
    [["train", "--init", "x", "--init-method", "best"], [
      '--init-method is "best"',
      '"stepwise"',
      '"random"',
    ]],
    [["train", "--out", "x", "--resume", "--init", "y"], ["--init cannot be given with --resume"]],
    [["train", "--resume", "--init-method", "upper"], ["--init-method cannot be given with --resume"]],
    [["train", "--capacity-warmup", "-1"], ["--capacity-warmup is -1"]],
    [["generate", "-p", "x"], ["Missing argument", "checkpoint"]],
    [["generate", "a", "b", "-p", "x"], ["Too many arguments", "b"]],
    [[...generate, "-f", "x"], ["one of -p, -f and --prompts"]],
    [["generate", "model"], ["one of -p, -f and --prompts"]],
    [["generate", "model", "-p", ""], ["-p is empty, wanted a value"]],
    [["inspect", ""], ["An argument is empty"]],
    [["inspect", "--", "tiny"], ['"--" means nothing here']],
    [["train", "--out="], ["--out is empty"]],
    [[...generate, "-n", "few"], ["--count", '"integer"', '"few"']],
    [["forward", "model"], ["--ids"]],
    [[...forward, "--routing", "random"], ['--routing is "random"', "causal or top-k"]],
    [[...forward, "--routing", "causal", "--gradients", "y"], ["--gradients", "top-k"]],
    [[...forward, "--cached", "3", "--gradients", "y"], ["--gradients", "no --cached"]],
    [[...forward, "--cached", "3", "--routing", "top-k"], ["--cached needs --routing causal"]],
    [[...forward, "--cached", "-1"], ["--cached is -1", "0 or more"]],
    [[...forward, "--cached", "few"], ["--cached", '"integer"', '"few"']],
    [[...forward, "--greedy", "-1"], ["--greedy is -1", "0 or more"]],
  ];
  for (const [args, parts] of wrong) await assertFails(args, { code: USAGE, parts });
});

folderTest("files and folders that cannot be used are named", async (folder) => {
  const settings = join(folder, "settings.json");
  const out = ["--out", join(folder, "out")];
  await assertFails(["train", "--config", settings, ...out], { code: 1, parts: [settings, "no such file"] });
  await Deno.writeTextFile(settings, '{"step": 3}');
  await assertFails(["train", "--config", settings, ...out], {
    code: 1,
    parts: [settings, '"step"', "correct its name"],
  });
  await Deno.writeTextFile(settings, '{"steps": -3}');
  await assertFails(["train", "--config", settings, ...out], {
    code: 1,
    parts: [settings, "steps is -3", ">0"],
  });
  await assertFails(["inspect", "135m-mor9"], { code: 1, parts: ['"135m-mor9"', "folder", "preset"] });
  await assertFails(["generate", folder, "-p", "x"], {
    code: 1,
    parts: [join(folder, "config.json"), "no such file"],
  });
  await assertFails(smallRun(join(settings, "out")), {
    code: 1,
    parts: ["Cannot go on in", settings, "nothing was saved"],
  });
});

/** A few MiB of disk of its own at `folder`, if this user may mount one. */
async function mountSmallDisk(folder: string): Promise<boolean> {
  if (Deno.build.os !== "linux") return false;
  return (await run(["sh", "-c", 'mount -t tmpfs -o size=3m tmpfs "$1" 2>/dev/null', "sh", folder])).code ===
    0;
}

const diskFolder = await Deno.makeTempDir();
const hasSmallDisk = await mountSmallDisk(diskFolder);

Deno.test.afterAll(async () => {
  if (hasSmallDisk) await run(["sh", "-c", 'umount "$1"', "sh", diskFolder]);
  await Deno.remove(diskFolder, { recursive: true });
});

Deno.test({
  name: `a full disk ends training and leaves the checkpoint before${
    hasSmallDisk ? "" : " (not run: cannot mount a disk)"
  }`,
  ignore: !hasSmallDisk,
  fn: async () => {
    const out = join(diskFolder, "run");
    // Weights and state take 1.8 MiB: a second pair does not fit beside them.
    await morDone(
      smallRun(out, "--steps", "4", "--stop-after", "1", "--eval-every", "0", "--save-every", "1"),
    );
    const before = await checkpointTensors(out);
    const line = await assertFails(["train", "--out", out, "--resume"], {
      code: 1,
      parts: ["No space left on device"],
    });
    assertStringIncludes(line, `Cannot go on in ${out}`);
    assertStringIncludes(line, "the checkpoint of step 1 there is intact");
    assertEquals(await checkpointTensors(out), before);
    assertEquals(await savedStep(out), 1);
    await morDone(["generate", out, "-p", "x", "-n", "1"]);
    // With room again the run goes on.
    await run(["sh", "-c", 'mount -o remount,size=20m "$1"', "sh", diskFolder]);
    await morDone(["train", "--out", out, "--resume"]);
    assertEquals(await savedStep(out), 4);
  },
});

Deno.test("only an unexpected error speaks of a stack, and --verbose shows one", async () => {
  const { stderr } = await mor(["inspect", "nothing", "--verbose"]);
  assertStringIncludes(stderr, "\n    at ");
  const command = programCommand(["--version"]);
  const { stdout } = await run(command);
  assert(/\d+\.\d+\.\d+/.test(stdout), stdout);
});
