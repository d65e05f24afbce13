/** `mor generate --prompts` from end to end: many texts at once, in files and pipes, killed and gone on with. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { assertFails, morDone, outcomeOf, programCommand, start, waitFor } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

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

/** A line of results. */
interface Result {
  readonly index: number;
  readonly prompt: string;
  readonly text: string;
  readonly finish_reason: string;
  readonly tokens: number;
  readonly mean_depth: number;
  readonly seed: number;
  readonly id?: unknown;
}

const words = ["Call me", "The whale", "It was a", "In the", "Ahab"];

/** Prompts of all kinds of settings. */
function promptsOf(count: number): Record<string, unknown>[] {
  return Array.from({ length: count }, (_, i) => ({
    prompt: words[i % words.length],
    count: 4 + (i * 7) % 20,
    ...(i % 3 === 0 && { temperature: 0 }),
    ...(i % 4 === 1 && { seed: 100 + i, repeat_penalty: 1.3 }),
    ...(i % 5 === 2 && { stop: "e" }),
    id: `p${i}`,
  }));
}

async function writePrompts(name: string, prompts: readonly unknown[]): Promise<string> {
  const path = join(folder, name);
  await Deno.writeTextFile(path, prompts.map((prompt) => JSON.stringify(prompt) + "\n").join(""));
  return path;
}

function parse(text: string): Result[] {
  return text.trimEnd().split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
}

async function readResults(path: string): Promise<Result[]> {
  return parse(await Deno.readTextFile(path));
}

function generate(prompts: string, ...more: readonly string[]): string[] {
  return ["generate", model, "--prompts", prompts, "--seed", "3", ...more];
}

Deno.test("many prompts get the texts that each gets alone", async () => {
  const prompts = promptsOf(7);
  const path = await writePrompts("alone.jsonl", prompts);
  const out = join(folder, "alone-results.jsonl");
  const { stdout, stderr } = await morDone(generate(path, "--out", out, "--in-order", "--batch-size", "3"));
  assertEquals(stdout, "");
  for (const part of ["seed: 3", "batch: 3 rows", "7 texts in", "tokens/s", "mean depth"]) {
    assertStringIncludes(stderr, part);
  }
  const results = await readResults(out);
  assertEquals(results.map(({ index }) => index), [0, 1, 2, 3, 4, 5, 6]);
  for (const [i, result] of results.entries()) {
    const { prompt, count, temperature, seed, repeat_penalty, stop, id } = prompts[i]!;
    const flags = {
      "-p": prompt,
      "-n": count,
      "--seed": seed ?? 3 + i,
      ...(temperature !== undefined && { "--temperature": temperature }),
      ...(repeat_penalty !== undefined && { "--repeat-penalty": repeat_penalty }),
      ...(stop !== undefined && { "--stop": stop }),
    };
    const args = Object.entries(flags).flatMap(([flag, value]) => [flag, String(value)]);
    const alone = JSON.parse((await morDone(["generate", model, "--json", ...args])).stdout);
    const depths = alone.tokens.map(({ depth }: { depth: number }) => depth);
    assertEquals(result, {
      index: i,
      id,
      prompt: prompt as string,
      text: alone.text,
      finish_reason: stop !== undefined && depths.length < (count as number) ? "stop" : result.finish_reason,
      tokens: depths.length,
      mean_depth: depths.reduce((sum: number, depth: number) => sum + depth, 0) / Math.max(1, depths.length),
      seed: alone.seed,
    });
  }
});

Deno.test("packed weights and an f16 cache serve many texts as they serve one", async () => {
  const path = await writePrompts("packed.jsonl", words.map((prompt) => ({ prompt, count: 30 })));
  const formats = ["--dtype", "q8_0", "--kv-dtype", "f16", "--temperature", "0"];
  const { stdout } = await morDone(generate(path, "--in-order", "-q", ...formats));
  for (const { prompt, text } of parse(stdout)) {
    const alone = await morDone(["generate", model, "-q", "--json", "-n", "30", "-p", prompt, ...formats]);
    assertEquals(text, JSON.parse(alone.stdout).text);
  }
});

Deno.test("prompts come from a pipe and results go into one, as they finish", async () => {
  const prompts = promptsOf(9);
  const input = prompts.map((prompt) => JSON.stringify(prompt)).join("\n");
  const { stdout } = await morDone(generate("-", "-q", "-n", "5"), { input });
  assertEquals(parse(stdout).map(({ index }) => index).toSorted(), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
  assertEquals(parse(stdout).find(({ index }) => index === 4)!.id, "p4");
});

Deno.test("a run that is killed goes on without what is done", async () => {
  const prompts = promptsOf(60).map((prompt) => ({ ...prompt, count: 150, stop: undefined }));
  const path = await writePrompts("killed.jsonl", prompts);
  const whole = join(folder, "whole.jsonl");
  await morDone(generate(path, "--out", whole, "--in-order"));
  const out = join(folder, "killed-results.jsonl");
  const args = generate(path, "--out", out, "--batch-size", "4");
  for (let kill = 0; kill < 2; kill++) {
    const before = kill === 0 ? 0 : (await Deno.stat(out)).size;
    const child = start(programCommand([...args, ...(kill === 0 ? [] : ["--resume"])]));
    await waitFor(async () => (await Deno.stat(out)).size > before);
    child.kill("SIGKILL");
    await outcomeOf(child);
  }
  const done = (await Deno.readTextFile(out)).split("\n").length - 1;
  assert(done > 0 && done < 60, `${done} texts were done when the run was killed`);
  await Deno.writeTextFile(out, '{"index": 59, "prom', { append: true });
  const { stderr } = await morDone([...args, "--resume"]);
  assertStringIncludes(stderr, "of 60 texts are there already");
  assertStringIncludes(stderr, "an unfinished result");
  const results = await readResults(out);
  assertEquals(results.toSorted((a, b) => a.index - b.index), await readResults(whole));
  const again = await morDone([...args, "--resume"]);
  assertStringIncludes(again.stderr, "60 of 60 texts are there already");
  assertEquals(await readResults(out), results);
});

Deno.test("a run that goes on keeps the seed that it drew", async () => {
  const path = await writePrompts("seeds.jsonl", promptsOf(5));
  const out = join(folder, "seeds-results.jsonl");
  const args = ["generate", model, "--prompts", path, "--out", out, "--in-order"];
  await morDone(args);
  const results = await readResults(out);
  const lines = (await Deno.readTextFile(out)).split("\n");
  await Deno.writeTextFile(out, lines.slice(0, 2).join("\n") + "\n");
  await morDone([...args, "--resume"]);
  assertEquals(await readResults(out), results);
});

Deno.test("a run that goes on with few texts sums as the whole run did, and puts the file in order", async () => {
  const path = await writePrompts("sums.jsonl", promptsOf(40).map((prompt) => ({ ...prompt, count: 60 })));
  const out = join(folder, "sums-results.jsonl");
  const args = generate(path, "--out", out, "--in-order", "--temperature", "1");
  await morDone(args);
  const whole = await Deno.readTextFile(out);
  assertEquals(parse(whole).map(({ index }) => index), [...new Array(40).keys()]);
  const lines = whole.split("\n").slice(0, -1);
  await Deno.writeTextFile(out, lines.slice(3).toReversed().join("\n") + "\n");
  await morDone([...args, "--resume"]);
  assertEquals(await Deno.readTextFile(out), whole);
});

Deno.test("Ctrl-C leaves whole lines to go on with", async () => {
  const path = await writePrompts(
    "stopped.jsonl",
    promptsOf(40).map((prompt) => ({ ...prompt, count: 200 })),
  );
  const out = join(folder, "stopped-results.jsonl");
  const child = start(programCommand(generate(path, "--out", out, "--batch-size", "2")));
  await waitFor(async () => (await Deno.stat(out)).size > 0);
  child.kill("SIGINT");
  const { code, stderr } = await outcomeOf(child);
  assertEquals(code, 130);
  assertStringIncludes(stderr, "--resume goes on");
  const results = await readResults(out);
  assert(results.length > 0 && results.length < 40);
  assertStringIncludes(stderr, `interrupted with ${results.length} of 40 texts written`);
});

Deno.test("no tokens, and the end of the model's positions, are texts too", async () => {
  const path = await writePrompts("edges.jsonl", [
    { prompt: "Call me", count: 0 },
    { prompt: "Call me", count: 100_000, temperature: 0 },
    { prompt: "C", count: 1 },
  ]);
  const { stdout, stderr } = await morDone(generate(path, "--in-order"));
  const [none, long, one] = parse(stdout);
  assertEquals([none!.text, none!.tokens, none!.finish_reason], ["", 0, "length"]);
  assertEquals(one!.tokens, 1);
  if (long!.finish_reason === "length") assertStringIncludes(stderr, "1 texts end where the model's");
  const nothing = await writePrompts("nothing.jsonl", [{ prompt: "a", count: 0 }]);
  assertEquals(parse((await morDone(generate(nothing))).stdout).length, 1);
});

Deno.test("what cannot be done is refused at once, and nothing is written", async () => {
  const path = await writePrompts("fine.jsonl", promptsOf(3));
  const taken = join(folder, "taken.jsonl");
  await Deno.writeTextFile(taken, '{"index":0,"prompt":"another","seed":1}\n');
  const long = await writePrompts("long.jsonl", [{ prompt: "a" }, { prompt: "x".repeat(5000) }]);
  const out = join(folder, "never.jsonl");
  const begun = join(folder, "begun.jsonl");
  await morDone(generate(path, "--out", begun));
  const system = await writePrompts("system.jsonl", [{ prompt: "a", system: "Be a whale." }]);
  const cases: readonly (readonly [readonly string[], number, readonly string[]])[] = [
    [generate(system, "--out", out), 1, ["prompt 1 of", "needs --chat"]],
    [
      ["generate", model, "--prompts", path, "--out", begun, "--resume", "--seed", "9"],
      1,
      ["begun.jsonl", "has the seed 3, not 9"],
    ],
    [generate(path, "--out", taken), 1, ["it is there already", "--resume"]],
    [generate(path, "--out", taken, "--resume"), 1, ["a result of other prompts"]],
    [generate(long, "--out", out), 1, ["prompt 2 of", "5000 tokens"]],
    [generate(join(folder, "missing.jsonl")), 1, ["missing.jsonl"]],
    [generate(path, "--kv-memory", "1", "-n", "100", "--out", out), 0, []],
    [generate(path, "--resume"), 2, ["--resume needs --out"]],
    [generate(path, "-p", "a"), 2, ["one of -p, -f and --prompts"]],
    [["generate", model], 2, ["one of -p, -f and --prompts"]],
    [["generate", model, "-p", "a", "--out", out], 2, ["--out needs --prompts"]],
    [generate(path, "--json"), 2, ["--json does not go with --prompts"]],
    [generate(path, "--batch-size", "0"), 2, ["--batch-size is 0"]],
  ];
  for (const [args, code, parts] of cases) {
    if (code === 0) await morDone(args);
    else await assertFails(args, { code, parts });
    if (code !== 0) assertEquals(await Deno.stat(out).then(() => true, () => false), false);
    await Deno.remove(out).catch(() => {});
  }
  assertEquals(await Deno.readTextFile(taken), '{"index":0,"prompt":"another","seed":1}\n');
});
