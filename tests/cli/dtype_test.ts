/** `--dtype` and `--kv-dtype`: formats that weights, keys and values are kept in while a command runs. */
import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { assertFails, corpus, morDone } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

const FORMATS = ["f16", "q8_0", "q4_0"];

let folder: string;
let model: string;
let ids: string;

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir();
  model = join(folder, "model");
  await morDone(smallRun(model, "--steps", "20", "--eval-every", "0", "--save-every", "20"));
  await Promise.all(
    FORMATS.map((format) =>
      morDone(["quantize", model, "--format", format, "--out", quantized(format), "-q"])
    ),
  );
  ids = join(folder, "ids.json");
  await Deno.writeTextFile(ids, JSON.stringify({ input_ids: [[1, 2, 3, 4]], targets: [[2, 3, 4, 5]] }));
});

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

function quantized(format: string): string {
  return join(folder, format);
}

const WEIGHTS = /^weights: [\d,]+ as (\w+)/m;

async function generate(
  path: string,
  ...more: readonly string[]
): Promise<{ tokens: unknown; notes: string }> {
  const args = ["generate", path, "-p", "The whale", "-n", "24", "--seed", "3", "--json", ...more];
  const { stdout, stderr } = await morDone(args);
  return { tokens: JSON.parse(stdout).tokens, notes: stderr };
}

for (const format of FORMATS) {
  Deno.test(`generate --dtype ${format} is the checkpoint that quantize writes`, async () => {
    const [plain, atRun, written] = await Promise.all([
      generate(model),
      generate(model, "--dtype", format),
      generate(quantized(format)),
    ]);
    assertEquals([plain, atRun, written].map(({ notes }) => WEIGHTS.exec(notes)![1]), [
      "f32",
      format,
      format,
    ]);
    assertEquals(atRun.tokens, written.tokens);
    assertNotEquals(atRun.tokens, plain.tokens);
  });
}

Deno.test("--dtype f32 unpacks a quantized checkpoint", async () => {
  const { notes } = await generate(quantized("q8_0"), "--dtype", "f32");
  assertEquals(WEIGHTS.exec(notes)![1], "f32");
});

Deno.test("generate --kv-dtype f16 rounds keys and values, no more", async () => {
  const log = async (...more: readonly string[]): Promise<number[]> => {
    const { tokens } = await generate(model, "--temperature", "0", ...more);
    return (tokens as { log_probability: number }[]).map((token) => token.log_probability);
  };
  const [exact, rounded] = [await log("--kv-dtype", "f32"), await log("--kv-dtype", "f16")];
  // The prompt's last position is computed before anything is read from the cache; later ones read it.
  const differences = exact.slice(0, 4).map((value, i) => Math.abs(value - rounded[i]!));
  assert(differences.some((value) => value > 0), `${differences}`);
  assert(differences.every((value) => value < 0.01), `${differences}`);
});

Deno.test("eval --dtype measures what the quantized checkpoint is worth", async () => {
  async function loss(path: string, ...more: readonly string[]): Promise<number> {
    // Only the first of the two tells what it was trained with.
    const shape = ["--routing", "causal", "--max-tokens", "500", "--sequence-length", "32"];
    const args = ["eval", path, "--data", corpus, ...shape, "--json", ...more];
    return JSON.parse((await morDone(args)).stdout).routings.causal.loss;
  }
  const atRun = await loss(model, "--dtype", "q4_0");
  assertEquals(atRun, await loss(quantized("q4_0")));
  assertNotEquals(atRun, await loss(model));
});

Deno.test("forward and profile take --dtype where it can be had", async () => {
  async function logits(path: string, ...more: readonly string[]): Promise<unknown> {
    return JSON.parse((await morDone(["forward", path, "--ids", ids, "--json", ...more])).stdout).logits;
  }
  const atRun = await logits(model, "--dtype", "q8_0");
  assertEquals(atRun, await logits(quantized("q8_0")));
  assertNotEquals(atRun, await logits(model));
  const small = ["-p", "5", "-n", "2", "--repeats", "1"];
  const { stderr } = await morDone(["profile", model, ...small, "--dtype", "q8_0"]);
  assertStringIncludes(stderr, " as q8_0");
});

Deno.test("formats that there are not, or not for this, are refused", async () => {
  const generate = ["generate", model, "-p", "x"];
  const forward = ["forward", model, "--ids", ids];
  const commands = [generate, ["eval", model, "--data", corpus], forward, ["profile", model]];
  const gradients = ["--gradients", join(folder, "gradients.safetensors"), "--dtype", "q8_0"];
  const refused: readonly (readonly [args: readonly string[], part: string])[] = [
    ...commands.map((args) =>
      [[...args, "--dtype", "q5_1"], '--dtype is "q5_1", wanted f32, f16, q8_0, q4_0'] as const
    ),
    [[...generate, "--kv-dtype", "q8_0"], '--kv-dtype is "q8_0", wanted f32, f16'],
    [[...forward, ...gradients], "--gradients needs --dtype f32"],
    [["profile", "tiny", "--dtype", "q8_0"], '--dtype is "q8_0", wanted f32'],
    [["profile", model, "--train", "--dtype", "q8_0"], '--dtype is "q8_0", wanted f32'],
  ];
  await Promise.all(refused.map(([args, part]) => assertFails(args, { code: 2, parts: [part] })));
});
