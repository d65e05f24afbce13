/** `mor quantize` from end to end, on a model that has been trained for some steps. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { assertFails, corpus, morDone } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

let folder: string;
let model: string;

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir();
  model = join(folder, "model");
  await morDone(smallRun(model, "--model", "tiny", "--steps", "30", "--eval-every", "0"));
});

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

interface Figure {
  readonly mean: number;
  readonly standard_error: number | null;
}

/** What `mor quantize --json` prints. */
interface Report {
  readonly parameters: number;
  readonly bytes: number;
  readonly bytes_f32: number;
  readonly bits_per_weight: number;
  readonly tensors: readonly {
    readonly name: string;
    readonly format: string;
    readonly relative_error: number;
  }[];
  readonly comparison?: {
    readonly tokens: number;
    readonly perplexity_before: Figure;
    readonly perplexity_after: Figure;
    readonly perplexity_change_percent: Figure;
    readonly kl_divergence: Figure;
    readonly top_token_agreement_percent: Figure;
  };
}

async function quantize(...args: readonly string[]): Promise<Report> {
  return JSON.parse((await morDone(["quantize", model, "--json", ...args])).stdout);
}

Deno.test("quantize writes a checkpoint that generates and evaluates, a fraction of the size", async () => {
  const out = join(folder, "q8");
  const { stdout } = await morDone(["quantize", model, "--format", "q8_0", "--out", out]);
  assertStringIncludes(stdout, "model.embed_tokens.weight");
  assertStringIncludes(stdout, "bits per weight");
  assertStringIncludes(stdout, `written to ${out}`);
  const [before, after] = await Promise.all(
    [model, out].map(async (path) => (await Deno.stat(join(path, "model.safetensors"))).size),
  );
  assert(after! < before! / 2, `${after} of ${before} bytes`);
  const { stderr } = await morDone(["generate", out, "-p", "The ", "-n", "8", "--seed", "1"]);
  assertStringIncludes(stderr, "as q8_0");
  const evaluate = async (path: string): Promise<number> => {
    const { stdout } = await morDone(["eval", path, "--data", corpus, "--routing", "causal", "--json"]);
    return JSON.parse(stdout).routings.causal.loss;
  };
  const [loss, quantized] = [await evaluate(model), await evaluate(out)];
  assert(loss !== quantized && Math.abs(loss - quantized) < 0.02, `${loss} and ${quantized}`);
});

Deno.test("quantize --dry-run --eval says what four bits would cost, and writes nothing", async () => {
  const names = [...Deno.readDirSync(folder)].length;
  const report = await quantize("--format", "q4_0", "--dry-run", "--eval", corpus, "--max-tokens", "1000");
  assertEquals([...Deno.readDirSync(folder)].length, names);
  assertEquals(report.bytes_f32, report.parameters * 4);
  assertEquals(report.bits_per_weight, (8 * report.bytes) / report.parameters);
  const embedding = report.tensors.find(({ name }) => name === "model.embed_tokens.weight")!;
  assertEquals(embedding.format, "q4_0");
  assert(embedding.relative_error > 0.01 && embedding.relative_error < 0.15, `${embedding.relative_error}`);
  const { comparison } = report;
  assertEquals(comparison!.tokens, 1000);
  const half = ["--format", "q4_0", "--embedding-format", "f16", "--dry-run"];
  const mixed = await quantize(...half, "--eval", corpus, "--max-tokens", "1000");
  assert(mixed.bytes > report.bytes);
  assert(mixed.comparison!.kl_divergence.mean < comparison!.kl_divergence.mean);
  assert(comparison!.kl_divergence.mean > 0 && comparison!.kl_divergence.mean < 0.5);
  assert(comparison!.top_token_agreement_percent.mean > 50);
  const [before, after] = [comparison!.perplexity_before.mean, comparison!.perplexity_after.mean];
  assert(Math.abs(100 * (after / before - 1) - comparison!.perplexity_change_percent.mean) < 1e-6);
});

Deno.test("quantize --eval compares with what it wrote", async () => {
  const out = join(folder, "four");
  const how = ["--format", "q4_0", "--eval", corpus, "--max-tokens", "500"];
  const [written, planned] = [await quantize(...how, "--out", out), await quantize(...how, "--dry-run")];
  assertEquals(written.comparison, planned.comparison);
  assert(written.comparison!.kl_divergence.mean > 0);
  const { stdout } = await morDone(["quantize", out, "--format", "q4_0", "--dry-run"]);
  assertStringIncludes(stdout, "nothing written (--dry-run)");
});

Deno.test("quantize looks at the text before it writes", async () => {
  const out = join(folder, "unwritten");
  const how = ["quantize", model, "--format", "q8_0", "--out", out];
  await assertFails([...how, "--eval", join(folder, "typo.txt")], { code: 1, parts: ["no such file"] });
  await assertFails([...how, "--eval", corpus, "--sequence-length", "100000"], {
    code: 1,
    parts: ["Cannot use windows of 100000 tokens", "lower --sequence-length"],
  });
  assert(![...Deno.readDirSync(folder)].some(({ name }) => name.startsWith("unwritten")));
});

Deno.test("quantize says what is wrong in one line", async () => {
  const out = join(folder, "new");
  await assertFails(["quantize", model, "--format", "q5_1", "--out", out], {
    code: 2,
    parts: ['--format is "q5_1", wanted f16, q8_0, q4_0'],
  });
  await assertFails(["quantize", model, "--format", "q8_0"], { code: 2, parts: ["Give --out or --dry-run"] });
  await assertFails(["quantize", model, "--format", "q8_0", "--dry-run", "--out", out], {
    code: 2,
    parts: ["--dry-run writes nothing: leave --out away"],
  });
  await assertFails(["quantize", model, "--format", "q8_0", "--dry-run", "--max-tokens", "3"], {
    code: 2,
    parts: ["--max-tokens needs --eval"],
  });
  await assertFails(["quantize", model, "--format", "q8_0", "--out", model], {
    code: 1,
    parts: [`Cannot write to ${model}: it is not empty; name another folder`],
  });
});
