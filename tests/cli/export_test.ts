/** `mor export` from end to end, on models that have been trained for some steps. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { openGguf } from "../../model/files/gguf_file.ts";
import { assertFails, morDone } from "../support/program.ts";
import { smallRun } from "../support/small_run.ts";

const USAGE = 2;

let folder: string;
let vanilla: string;
let recursive: string;

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir();
  [vanilla, recursive] = [join(folder, "vanilla"), join(folder, "recursive")];
  await morDone(smallRun(vanilla, "--model", "tiny-vanilla", "--eval-every", "0"));
  await morDone(smallRun(recursive, "--model", "tiny", "--steps", "2", "--eval-every", "0"));
});

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

/** Names in a folder, sorted. */
function namesIn(path: string): string[] {
  return Array.from(Deno.readDirSync(path), ({ name }) => name).sort();
}

/** What a model says at temperature 0, and how likely it finds that. */
async function answer(model: string): Promise<unknown> {
  const flags = [
    "-p",
    "Call me",
    "-n",
    "12",
    "--temperature",
    "0",
    "--seed",
    "1",
    "--json",
    "--logprobs",
    "2",
  ];
  return JSON.parse((await morDone(["-q", "generate", model, ...flags])).stdout).tokens;
}

Deno.test("export writes a folder and a file that say what the model says", async () => {
  const [hf, gguf] = [join(folder, "new", "hf"), join(folder, "new", "my model.gguf")];
  const first = await morDone(["export", vanilla, "--format", "hf", "--out", hf]);
  assertEquals(first, { code: 0, stdout: `${hf}\n`, stderr: "hf: for transformers, as LlamaForCausalLM\n" });
  const second = await morDone(["export", vanilla, "--format", "gguf", "--out", gguf]);
  assertEquals(second, { code: 0, stdout: `${gguf}\n`, stderr: "gguf: for llama.cpp, as a Llama model\n" });
  assertEquals(namesIn(hf), [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  const wanted = await answer(vanilla);
  assertEquals([await answer(hf), await answer(gguf)], [wanted, wanted]);
});

Deno.test("export of a quantized checkpoint keeps its blocks, or makes them with --dtype", async () => {
  const [quantized, kept, made] = ["quantized", "kept.gguf", "made.gguf"].map((name) => join(folder, name));
  await morDone(["quantize", vanilla, "--format", "q8_0", "--out", quantized!]);
  await morDone(["export", quantized!, "--format", "gguf", "--out", kept!]);
  await morDone(["-q", "export", vanilla, "--format", "gguf", "--dtype", "q8_0", "--out", made!]);
  using file = await openGguf(kept!);
  assertEquals(file.entries.get("model.embed_tokens.weight")!.format, "q8_0");
  // Alike but for their names, which are the models'.
  const [one, other] = [kept!, made!].map((path) =>
    new TextDecoder("latin1").decode(Deno.readFileSync(path))
  );
  assertEquals(other!.replace("made", "kept") === one, true);

  const half = join(folder, "half");
  await morDone(["export", quantized!, "--format", "hf", "--dtype", "f16", "--out", half]);
  const { torch_dtype, quantization_config } = JSON.parse(await Deno.readTextFile(join(half, "config.json")));
  assertEquals([torch_dtype, quantization_config], ["float16", undefined]);
});

Deno.test("export of a recursive model is for the authors' code", async () => {
  const out = join(folder, "authors");
  const { stdout, stderr } = await morDone(["export", recursive, "--format", "hf", "--out", out]);
  assertEquals([stdout, stderr], [`${out}\n`, "hf: for the authors' PyTorch code, see its README.md\n"]);
  assertStringIncludes(await Deno.readTextFile(join(out, "README.md")), "deepspeed --include");
  const { architectures } = JSON.parse(await Deno.readTextFile(join(out, "config.json")));
  assertEquals(architectures, ["MoRLlamaForCausalLM"]);
  assertEquals(await answer(out), await answer(recursive));
});

Deno.test("export ends with one line about what went wrong", async () => {
  const out = join(folder, "not written");
  const gguf = join(folder, "not written.gguf");
  const before = namesIn(folder);
  const usage: readonly (readonly [args: string[], parts: string[]])[] = [
    [["--format", "onnx", "--out", out], ['--format is "onnx"', "hf or gguf"]],
    [["--format", "hf", "--dtype", "q8_0", "--out", out], ['--dtype is "q8_0"', "f32, f16"]],
    [["--format", "gguf", "--dtype", "q5_0", "--out", gguf], ['--dtype is "q5_0"', "f32, f16, q8_0, q4_0"]],
    [["--format", "hf"], ["--out"]],
    [["--out", out], ["--format"]],
  ];
  for (const [args, parts] of usage) await assertFails(["export", vanilla, ...args], { code: USAGE, parts });
  await assertFails(["export", recursive, "--format", "gguf", "--out", gguf], {
    code: 1,
    parts: ["Cannot export a recursive model as GGUF", "export it to hf"],
  });
  await assertFails(["export", vanilla, "--format", "gguf", "--out", out], {
    code: 1,
    parts: [out, ".gguf"],
  });
  await assertFails(["export", vanilla, "--format", "hf", "--out", vanilla], {
    code: 1,
    parts: [`Cannot write to ${vanilla}`, "name another folder"],
  });
  await assertFails(["export", join(folder, "nothing"), "--format", "hf", "--out", out], {
    code: 1,
    parts: ["nothing: no such file or folder"],
  });
  assertEquals(namesIn(folder), before);
});
