/** `mor generate` from end to end, on a model that has been trained for a few steps. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { assertFails, mor, morDone, outcomeOf, programCommand, run, start } from "../support/program.ts";
import { smallRun, writeConfig } from "../support/small_run.ts";

const PROMPT = "The whale";
const COUNT = 24;

/** Largest difference between two computations of one log-probability. */
const ROUNDING = 1e-5;

let folder: string;
let model: string;

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir();
  model = join(folder, "model");
  await morDone(smallRun(model, "--steps", "20", "--eval-every", "0", "--save-every", "20"));
});

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

function generate(...more: readonly string[]): string[] {
  return ["generate", model, "-n", String(COUNT), "--seed", "3", ...more];
}

/** What `mor generate --json` prints. */
interface Report {
  readonly prompt: string;
  readonly text: string;
  readonly seed: number;
  readonly seconds: number;
  readonly tokens: readonly {
    readonly id: number;
    readonly depth: number;
    readonly log_probability: number;
    readonly top?: readonly { readonly id: number; readonly log_probability: number }[];
  }[];
}

async function generateJson(...more: readonly string[]): Promise<Report> {
  return JSON.parse((await morDone(generate("-p", PROMPT, "--json", ...more))).stdout);
}

Deno.test("generate writes the text to stdout, notes to stderr, and repeats itself with a seed", async () => {
  const first = await morDone(generate("-p", PROMPT));
  assert(first.stdout.startsWith(PROMPT) && first.stdout.endsWith("\n"), first.stdout);
  assert(first.stdout.length > PROMPT.length + 5, first.stdout);
  for (const part of ["adapter: ", "seed: 3", `${COUNT} tokens, `]) assertStringIncludes(first.stderr, part);
  const second = await morDone(generate("-p", PROMPT, "--quiet"));
  assertEquals(second, { code: 0, stdout: first.stdout, stderr: "" });
  const other = await morDone(["generate", model, "-n", String(COUNT), "--seed", "4", "-p", PROMPT]);
  assert(other.stdout !== first.stdout, "another seed gives the same text");
});

Deno.test("generate draws a seed and echoes it, so that the text can be had again", async () => {
  const args = ["generate", model, "-n", "12", "-p", PROMPT, "--temperature", "1.5"];
  const { stdout, stderr } = await morDone(args);
  const seed = /^seed: (\d+)$/m.exec(stderr)![1]!;
  assertEquals((await morDone([...args, "--seed", seed])).stdout, stdout);
  const next = /^seed: (\d+)$/m.exec((await morDone(args)).stderr)![1]!;
  assert(next !== seed, "two runs drew the same seed");
});

Deno.test("generate --temperature 0 needs no seed", async () => {
  const [first, second] = await Promise.all(
    ["1", "2"].map((seed) =>
      morDone(["generate", model, "-n", "12", "--seed", seed, "-p", PROMPT, "--temperature", "0"])
    ),
  );
  assertEquals(second!.stdout, first!.stdout);
});

Deno.test("generate --json gives the same text with each token's depth and log-probability", async () => {
  const plain = await morDone(generate("-p", PROMPT));
  const report = await generateJson();
  assertEquals(Object.keys(report), ["prompt", "prompt_ids", "text", "tokens", "seed", "seconds"]);
  assertEquals(`${report.prompt}${report.text}\n`, plain.stdout);
  assertEquals([report.prompt, report.seed], [PROMPT, 3]);
  assertEquals(new TextDecoder().decode(Uint8Array.from(report.tokens, ({ id }) => id)), report.text);
  for (const { depth, log_probability: probability, top } of report.tokens) {
    assert(Number.isInteger(depth) && depth >= 0 && depth <= 3, `depth ${depth}`);
    assert(probability < 0, `log-probability ${probability}`);
    assertEquals(top, undefined);
  }
});

Deno.test("generate --logprobs gives the likeliest alternatives, best first", async () => {
  const { tokens } = await generateJson("--logprobs", "4");
  for (const { id, log_probability: chosen, top } of tokens) {
    assertEquals(top!.length, 4);
    const values = top!.map((other) => other.log_probability);
    assertEquals(values, values.toSorted((a, b) => b - a));
    // The chosen token's is computed on the GPU, in f32, the others' from its logits in float64.
    assert(chosen <= values[0]! + ROUNDING);
    const same = top!.find((other) => other.id === id);
    if (same) assertAlmostEquals(same.log_probability, chosen, ROUNDING);
  }
  await assertFails(generate("-p", PROMPT, "--logprobs", "4"), {
    code: 2,
    parts: ["--logprobs needs --json"],
  });
});

Deno.test("generate --stop ends before the first of several texts", async () => {
  const { text } = await generateJson();
  const stop = text.slice(8, 11);
  const end = text.indexOf(stop);
  const { stdout } = await morDone(generate("-p", PROMPT, "--stop", "never there", "--stop", stop));
  assertEquals(stdout, `${PROMPT}${text.slice(0, end)}\n`);
});

Deno.test("generate reads the prompt from stdin or a file as from the command line", async () => {
  const prompt = "Was für ein Wal — “riesig”\n";
  const { stdout } = await morDone(generate("-p", prompt));
  assert(stdout.startsWith(prompt));
  assertEquals((await morDone(generate("-p", "-"), { input: prompt })).stdout, stdout);
  const file = join(folder, "a prompt.txt");
  await Deno.writeTextFile(file, prompt);
  assertEquals((await morDone(generate("-f", file))).stdout, stdout);
});

Deno.test("generate refuses a prompt that is not UTF-8, and keeps a mark at its start", async () => {
  const file = join(folder, "bytes.txt");
  await Deno.writeFile(file, Uint8Array.of(0x41, 0xff));
  await assertFails(generate("-f", file), { code: 1, parts: [`Cannot read ${file}: it is not UTF-8 text`] });
  await Deno.writeTextFile(file, "\ufeffA");
  for (const flags of [["-f", file], ["-p", "-"]]) {
    const { stdout } = await morDone(generate(...flags, "--json"), { input: "\ufeffA" });
    assertEquals(JSON.parse(stdout).prompt_ids.slice(-4), [0xef, 0xbb, 0xbf, 0x41]);
  }
});

Deno.test("generate -n 0 gives the prompt back", async () => {
  const none = ["generate", model, "-n", "0", "-p", PROMPT, "--seed", "3"];
  assertEquals((await morDone(none)).stdout, `${PROMPT}\n`);
  const { text, tokens } = JSON.parse((await morDone([...none, "--json"])).stdout);
  assertEquals({ text, tokens }, { text: "", tokens: [] });
});

Deno.test("generate --depths writes no colours where there is no terminal", async () => {
  const plain = await morDone(generate("-p", PROMPT));
  const { stdout, stderr } = await morDone(generate("-p", PROMPT, "--depths"), { env: { FORCE_COLOR: "1" } });
  assertEquals(stdout, plain.stdout);
  assertEquals(stderr.includes("\x1b"), false, stderr);
  const { tokens } = await generateJson();
  assertStringIncludes(stderr, `depths: ${tokens.map(({ depth }) => depth).join(" ")}\n`);
});

/** The trained model with 40 positions. */
async function shortModel(): Promise<string> {
  const short = join(folder, "short");
  await Deno.mkdir(short, { recursive: true });
  await writeConfig(join(short, "config.json"), { change: { max_position_embeddings: 40 } });
  await Deno.copyFile(join(model, "model.safetensors"), join(short, "model.safetensors"));
  return short;
}

Deno.test("generate refuses a prompt that the model has no positions for", async () => {
  const short = await shortModel();
  for (const count of ["0", "1"]) {
    await assertFails(["generate", short, "-p", "x".repeat(41), "-n", count], {
      code: 1,
      parts: ["the prompt has 41 tokens", "40 positions", "max_position_embeddings", "shorter prompt"],
    });
  }
});

Deno.test("generate stops where the model's positions end, and says so", async () => {
  const short = await shortModel();
  // The last token has no position of its own: it does not run.
  for (const [prompt, room] of [[PROMPT, 40 - PROMPT.length + 1], ["x".repeat(40), 1]] as const) {
    const args = ["generate", short, "-p", prompt, "--temperature", "0", "--json", "-n"];
    const { stdout, stderr } = await morDone([...args, "100"]);
    assertEquals(JSON.parse(stdout).tokens.length, room);
    assertStringIncludes(
      stderr,
      `stopped after ${room} tokens: with the prompt's ${prompt.length} they reach the model's 40 positions ` +
        "(max_position_embeddings)\n",
    );
    const exact = await morDone([...args, String(room)]);
    assertEquals(JSON.parse(exact.stdout).tokens, JSON.parse(stdout).tokens);
    assertEquals(exact.stderr.includes("stopped"), false);
  }
});

Deno.test("generate ends quietly when nobody reads on", async () => {
  const command = programCommand(["generate", model, "-p", PROMPT, "-n", "200", "--quiet"]);
  const script = '"$@" | head -c 20; printf "%s" "${PIPESTATUS[0]}" >&2';
  const { stdout, stderr } = await run(["bash", "-c", script, "bash", ...command]);
  assertEquals({ length: stdout.length, stderr }, { length: 20, stderr: "0" });
});

Deno.test("generate interrupted by Ctrl-C exits with 130 and keeps what it wrote", async () => {
  const child = start(programCommand(["generate", model, "-p", PROMPT, "-n", "1000", "--seed", "1"]));
  const reader = child.stdout.getReader();
  let length = 0;
  while (length < PROMPT.length + 10) length += (await reader.read()).value!.length;
  reader.releaseLock();
  child.kill("SIGINT");
  const { code, stderr } = await outcomeOf(child);
  assertEquals(code, 130, stderr);
  assertStringIncludes(stderr, "mor: interrupted");
});

Deno.test("generate refuses settings out of range as wrong usage", async () => {
  const wrong = [
    [["-n", "-1"], "-n is -1"],
    [["--temperature", "-1"], "--temperature is -1"],
    [["--top-p", "0"], "--top-p is 0"],
    [["--min-p", "2"], "--min-p is 2"],
    [["--repeat-penalty", "0"], "--repeat-penalty is 0"],
    [["--seed", "4294967296"], "--seed is 4294967296"],
    [["--seed", "-1"], "--seed is -1"],
    [["--stop", ""], "--stop is empty"],
  ] as const;
  for (const [flags, part] of wrong) {
    await assertFails(["generate", model, "-p", PROMPT, ...flags], { code: 2, parts: [part, "wanted"] });
  }
  assertEquals((await mor(["generate", model, "-p", PROMPT, "-f", "x"])).code, 2);
});
