/** `mor eval` from end to end, on models that have been trained for two steps. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { assertFails, corpus, morDone } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

/** Bytes of the corpus but the first. */
const PREDICTED = Deno.statSync(corpus).size - 1;

let folder: string;

/** Models by kind: expert choice, token choice, and the recursive baseline. */
const models = { expert: "", token: "", recursive: "" };

async function train(name: string, model: string): Promise<string> {
  const out = join(folder, name);
  await morDone(smallRun(out, "--model", model, "--steps", "2", "--eval-every", "0"));
  return out;
}

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir();
  const { config } = JSON.parse((await morDone(["inspect", "tiny", "--json"])).stdout);
  const tokenChoice = join(folder, "token.json");
  await Deno.writeTextFile(tokenChoice, JSON.stringify({ ...config, router: { kind: "token_choice" } }));
  models.expert = await train("expert", "tiny");
  models.token = await train("token", tokenChoice);
  models.recursive = await train("recursive", "tiny-rec3");
});

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

interface Figures {
  readonly loss: number;
  readonly standard_error: number | null;
  readonly perplexity: number;
  readonly bits_per_byte: number;
  readonly bits_per_byte_standard_error: number | null;
  readonly tokens_per_depth: readonly number[];
  readonly depth_fractions: readonly number[];
  readonly mean_depth: number;
  readonly loss_per_depth: readonly (number | null)[];
  readonly max_violation?: number;
  readonly depth_entropy?: number;
  readonly tokens_per_second: number;
}

/** What `mor eval --json` prints. */
interface Report {
  readonly tokens: number;
  readonly windows: number;
  readonly sequence_length: number;
  readonly bytes_per_token: number;
  readonly routings_differ: boolean;
  readonly routings: Readonly<Record<string, Figures>>;
  readonly agreement?: { readonly overall: number; readonly by_step: readonly number[] };
  readonly gap?: { readonly loss: number; readonly standard_error: number | null };
}

async function evalJson(model: string, ...more: readonly string[]): Promise<Report> {
  return JSON.parse((await morDone(["eval", model, "--data", corpus, "--json", ...more])).stdout);
}

/** The numbers hang together. */
function assertConsistent({ loss, standard_error: error, ...figures }: Figures): void {
  const tolerance = 1e-9;
  assert(loss > 4 && loss < 8 && error! > 0 && error! < 0.5, `loss ${loss} ± ${error}`);
  assertAlmostEquals(figures.perplexity, Math.exp(loss), tolerance * figures.perplexity);
  // A token is a byte.
  assertAlmostEquals(figures.bits_per_byte, loss / Math.LN2, tolerance);
  assertAlmostEquals(figures.bits_per_byte_standard_error!, error! / Math.LN2, tolerance);
  assertEquals(figures.tokens_per_depth.reduce((sum, count) => sum + count, 0), PREDICTED);
  assertEquals(figures.depth_fractions, figures.tokens_per_depth.map((count) => count / PREDICTED));
  const weighted = (values: readonly number[]): number =>
    values.reduce((sum, value, depth) => sum + value * figures.depth_fractions[depth]!, 0);
  assertAlmostEquals(figures.mean_depth, weighted([0, 1, 2, 3]), tolerance);
  assertAlmostEquals(weighted(figures.loss_per_depth.map((mean) => mean ?? 0)), loss, tolerance);
  assert(figures.tokens_per_second > 0);
}

Deno.test("eval --json measures both routings of expert choice, and how they differ", async () => {
  const { routings, agreement, gap, ...report } = await evalJson(models.expert);
  assertEquals(report, {
    tokens: PREDICTED,
    windows: Math.ceil(PREDICTED / 32),
    sequence_length: 32,
    bytes_per_token: 1,
    routings_differ: true,
  });
  assertEquals(Object.keys(routings), ["causal", "top-k"]);
  const [causal, topK] = [routings["causal"]!, routings["top-k"]!];
  assertConsistent(causal);
  assertConsistent(topK);
  assertEquals("max_violation" in causal, false);
  // Of 32 tokens 32, 21 and 10 run the steps; of the last window's, all, two thirds and a third.
  const rest = PREDICTED % 32;
  const [whole, kept] = [Math.floor(PREDICTED / 32), [1, 2 / 3, 1 / 3].map((c) => Math.floor(c * rest))];
  assertEquals(topK.tokens_per_depth.slice(2), [
    whole * 11 + kept[1]! - kept[2]!,
    whole * 10 + kept[2]!,
  ]);
  const candidates = [PREDICTED, PREDICTED, topK.tokens_per_depth[2]! + topK.tokens_per_depth[3]!];
  const agreed = agreement!.by_step.reduce((sum, fraction, r) => sum + fraction * candidates[r]!, 0);
  const all = candidates.reduce((sum, count) => sum + count, 0);
  assertAlmostEquals(agreement!.overall, agreed / all, 1e-9);
  assertAlmostEquals(gap!.loss, topK.loss - causal.loss, 1e-9);
  assert(gap!.standard_error! >= 0 && gap!.standard_error! < topK.standard_error!);
});

Deno.test("eval --routing runs one routing, with the same figures", async () => {
  const { routings } = await evalJson(models.expert);
  for (const routing of ["causal", "top-k"]) {
    const report = await evalJson(models.expert, "--routing", routing);
    assertEquals(Object.keys(report.routings), [routing]);
    assertEquals([report.gap, "agreement" in report], [undefined, routing === "top-k"]);
    const withoutSpeed = ({ tokens_per_second: _, ...figures }: Figures): unknown => figures;
    assertEquals(withoutSpeed(report.routings[routing]!), withoutSpeed(routings[routing]!));
  }
});

for (const kind of ["token", "recursive"] as const) {
  Deno.test(`eval runs routings that are one rule once: ${kind}`, async () => {
    const report = await evalJson(models[kind]);
    const { causal, "top-k": topK } = report.routings;
    assertConsistent(causal!);
    assertEquals(topK, causal);
    assertEquals([report.routings_differ, report.agreement, report.gap], [false, undefined, undefined]);
    if (kind === "token") {
      assertEquals(causal!.depth_fractions[0], 0);
      assert(causal!.max_violation! >= 0 && causal!.max_violation! <= 2);
      assert(causal!.depth_entropy! >= 0 && causal!.depth_entropy! <= Math.log(3) + 1e-9);
    } else {
      assertEquals(causal!.tokens_per_depth, [0, 0, 0, PREDICTED]);
      assertEquals("max_violation" in causal!, false);
    }
  });
}

Deno.test("eval prints a table with a column for each routing; notes go to stderr", async () => {
  const { stdout, stderr } = await morDone(["eval", models.expert, "--data", corpus]);
  const { routings } = await evalJson(models.expert);
  const [causal, topK] = [routings["causal"]!, routings["top-k"]!];
  const lines = stdout.trimEnd().split("\n");
  const count = PREDICTED.toLocaleString("en");
  const windows = Math.ceil(PREDICTED / 32);
  assertEquals(
    lines[0],
    `text                ${count} tokens predicted, 1.00 bytes per token; windows of up to 32: ${windows}`,
  );
  assert(/^ +causal +top-k$/.test(lines[1]!), stdout);
  const cells = new Map(
    lines.slice(2).map((line) => {
      const [name, ...values] = line.split(/ {2,}/);
      return [name!, values];
    }),
  );
  assertEquals(
    cells.get("loss"),
    [causal, topK].map(({ loss, standard_error: error }) => `${loss.toFixed(4)} ± ${error!.toFixed(4)}`),
  );
  assertEquals(cells.get("perplexity"), [causal, topK].map(({ perplexity }) => perplexity.toFixed(3)));
  assertEquals(cells.get("mean depth"), [causal, topK].map(({ mean_depth: depth }) => depth.toFixed(3)));
  for (const name of ["bits per byte", "depth 1", "loss at depth 3", "tokens/s"]) {
    assertEquals(cells.get(name)?.length, 2, `${name} in:\n${stdout}`);
  }
  for (const part of ["top-k minus causal", "agreement", "step 3: "]) assertStringIncludes(stdout, part);
  for (
    const part of ["adapter: ", "windows of 32 tokens, as in training", `${2 * PREDICTED}/${2 * PREDICTED}`]
  ) {
    assertStringIncludes(stderr, part);
  }
  const token = await morDone(["--quiet", "eval", models.token, "--data", corpus]);
  assertEquals(token.stderr, "");
  for (const part of ["MaxVio", "depth entropy", "one rule for this model"]) {
    assertStringIncludes(token.stdout, part);
  }
});

Deno.test("eval gives the loss that forward gives for the same tokens", async () => {
  const bytes = await Deno.readFile(corpus);
  const ids = join(folder, "ids.json");
  await Deno.writeTextFile(
    ids,
    JSON.stringify({ input_ids: [[...bytes.subarray(0, 50)]], targets: [[...bytes.subarray(1, 51)]] }),
  );
  const short = ["--max-tokens", "50", "--sequence-length", "64"];
  const { tokens, windows, routings } = await evalJson(models.expert, ...short);
  assertEquals([tokens, windows], [50, 1]);
  for (const routing of ["causal", "top-k"]) {
    const { stdout } = await morDone([
      "forward",
      models.expert,
      "--ids",
      ids,
      "--routing",
      routing,
      "--json",
    ]);
    assertAlmostEquals(routings[routing]!.loss, JSON.parse(stdout).loss_ce, 1e-5);
    assertEquals(routings[routing]!.standard_error, null);
  }
});

Deno.test("eval says which window it takes where the checkpoint tells none", async () => {
  const copy = join(folder, "weights alone");
  await Deno.mkdir(copy);
  for (const name of ["config.json", "model.safetensors"]) {
    await Deno.copyFile(join(models.expert, name), join(copy, name));
  }
  const { stdout, stderr } = await morDone(["eval", copy, "--data", corpus, "--json", "--routing", "causal"]);
  assertStringIncludes(stderr, "windows of 512 tokens: the checkpoint does not tell");
  assertEquals(JSON.parse(stdout).sequence_length, 512);
});

Deno.test("eval refuses wrong usage, and data that it cannot measure on", async () => {
  const args = (...more: readonly string[]): string[] => ["eval", models.expert, "--data", corpus, ...more];
  await assertFails(args("--routing", "topk"), { code: 2, parts: ['"topk"', "causal, top-k, both"] });
  for (const flag of ["--sequence-length", "--batch-size", "--max-tokens"]) {
    await assertFails(args(flag, "0"), { code: 2, parts: [`${flag} is 0`, "wanted 1 or more"] });
  }
  await assertFails(["eval", models.expert], { code: 2, parts: ["--data"] });
  const missing = join(folder, "missing.txt");
  await assertFails(["eval", models.expert, "--data", missing], {
    code: 1,
    parts: [missing, "no such file"],
  });
  const short = join(folder, "short.txt");
  await Deno.writeTextFile(short, "x");
  await assertFails(["eval", models.expert, "--data", short], {
    code: 1,
    parts: [short, "1 tokens, wanted 2 or more"],
  });
  await assertFails(args("--sequence-length", "1025"), { code: 1, parts: ["1025 tokens", "1024 positions"] });
  await assertFails(["eval", folder, "--data", corpus], { code: 1, parts: ["config.json"] });
});

Deno.test("eval looks at its text before it opens a device or reads weights", async () => {
  const model = join(folder, "no weights");
  await Deno.mkdir(model);
  await Deno.copyFile(join(models.expert, "config.json"), join(model, "config.json"));
  const missing = join(folder, "missing.txt");
  const env = { DENO_WEBGPU_BACKEND: "none" };
  await assertFails(["eval", model, "--data", missing], { code: 1, parts: [missing], env });
  const long = ["--sequence-length", "1000000"];
  await assertFails(["eval", model, "--data", corpus, ...long], {
    code: 1,
    parts: ["Cannot use windows"],
    env,
  });
});
