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
  for (const format of FORMATS) {
    await morDone(["quantize", model, "--format", format, "--out", quantized(format), "-q"]);
  }
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
    const plain = await generate(model);
    const atRun = await generate(model, "--dtype", format);
    const written = await generate(quantized(format));
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
  const commands = {
    generate: ["generate", model, "-p", "x"],
    eval: ["eval", model, "--data", corpus],
    forward: ["forward", model, "--ids", ids],
    profile: ["profile", model],
  };
  for (const args of Object.values(commands)) {
    await assertFails([...args, "--dtype", "q5_1"], {
      code: 2,
      parts: ['--dtype is "q5_1", wanted f32, f16, q8_0, q4_0'],
    });
  }
  await assertFails([...commands.generate, "--kv-dtype", "q8_0"], {
    code: 2,
    parts: ['--kv-dtype is "q8_0", wanted f32 or f16'],
  });
  const gradients = ["--gradients", join(folder, "gradients.safetensors")];
  await assertFails([...commands.forward, ...gradients, "--dtype", "q8_0"], {
    code: 2,
    parts: ["--gradients needs --dtype f32"],
  });
  for (const args of [["profile", "tiny"], [...commands.profile, "--train"]]) {
    await assertFails([...args, "--dtype", "q8_0"], { code: 2, parts: ['--dtype is "q8_0", wanted f32'] });
  }
});
