/** Models with a tokenizer of their own, from `mor tokenizer train` to text. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { parameterCount } from "../../model/parameters.ts";
import { presetConfig } from "../../model/presets.ts";
import { readTokenizer } from "../../model/text/tokenizer_json.ts";
import { decodeAll } from "../support/decode.ts";
import { assertFails, corpus, folderTest, morDone } from "../support/program.ts";
import { assertSameCheckpoints, savedStep, smallRun, writeConfig } from "../support/small_run.ts";

const VOCABULARY = 400;
const TOKENIZER = "tokenizer.json";

/** A model of one layer with eight tokens. */
const gguf = fromFileUrl(new URL("../../fixtures/gguf/tiny.gguf", import.meta.url));

let folder: string;
let tokenizer: string;
let model: string;
let notes: string;

async function trainTokenizer(out: string, { size }: { size: number }): Promise<string> {
  await morDone(["tokenizer", "train", "--data", corpus, "--vocab-size", String(size), "--out", out]);
  return out;
}

Deno.test.beforeAll(async () => {
  folder = await Deno.makeTempDir();
  [tokenizer, model] = [join(folder, "tokenizer"), join(folder, "model")];
  await trainTokenizer(tokenizer, { size: VOCABULARY });
  notes = (await morDone(smallRun(model, "--tokenizer", tokenizer, "--sample-every", "3"))).stderr;
});

Deno.test.afterAll(async () => {
  await Deno.remove(folder, { recursive: true });
});

// deno-lint-ignore no-explicit-any -- a file of JSON
async function readJson(...path: readonly [string, ...string[]]): Promise<any> {
  return JSON.parse(await Deno.readTextFile(join(...path)));
}

/** A run of two steps. */
function shortRun(out: string, ...more: readonly string[]): string[] {
  return smallRun(out, "--steps", "2", "--eval-every", "0", ...more);
}

Deno.test("train --tokenizer makes a checkpoint with the tokenizer in it, and samples on the way", async () => {
  assertEquals(await readJson(model, TOKENIZER), await readJson(tokenizer, TOKENIZER));
  assertEquals((await readJson(model, "tokenizer_config.json")).eos_token, "<|endoftext|>");
  const config = await readJson(model, "config.json");
  assertEquals([config.vocab_size, config.tokenizer], [VOCABULARY, undefined]);
  assertEquals(notes.split("\nThe ").length - 1, 2, notes);
});

Deno.test("generate continues a prompt in the model's own tokens", async () => {
  const prompt = "Call me Ishmael; 42 whales";
  const args = ["generate", model, "-p", prompt, "-n", "30", "--seed", "1"];
  const { text, prompt_ids: promptIds, tokens } = JSON.parse((await morDone([...args, "--json"])).stdout);
  const own = await readTokenizer(model);
  assertEquals(promptIds, own.encode(prompt));
  assert(promptIds.length < prompt.length, `${promptIds.length} tokens`);
  const ids = tokens.map(({ id }: { id: number }) => id);
  assert(ids.some((id: number) => id > 256), `${ids} have no merged token`);
  const whole = decodeAll(own, [...promptIds, ...ids]);
  assertEquals(prompt + text, whole);
  assertEquals((await morDone(args)).stdout, whole + "\n");
});

Deno.test("eval charges each byte of the text its part of the loss", async () => {
  const { stdout } = await morDone(["eval", model, "--data", corpus, "--routing", "causal", "--json"]);
  const { bytes_per_token: bytes, tokens, routings: { causal } } = JSON.parse(stdout);
  const text = await Deno.readTextFile(corpus);
  const { encode } = await readTokenizer(model);
  assertEquals(tokens, encode(text).length - 1);
  // The first token is not predicted, and its bytes do not count.
  assertAlmostEquals(bytes, new TextEncoder().encode(text).length / encode(text).length, 0.01);
  assertAlmostEquals(causal.bits_per_byte, causal.loss / Math.LN2 / bytes, 1e-9);
  // Six steps are better than none, which is all tokens alike.
  assert(causal.loss < Math.log(VOCABULARY), `loss ${causal.loss}`);
});

folderTest("train --resume needs neither the tokenizer's files nor the model's again", async (folder) => {
  const [out, preset, straight] = [join(folder, "out"), join(folder, "preset"), join(folder, "straight")];
  const lost = await trainTokenizer(join(folder, "tokenizer"), { size: 300 });
  const file = await writeConfig(join(folder, "model.json"), { change: { vocab_size: 320 } });
  const own = ["--model", file, "--tokenizer", lost];
  await morDone(shortRun(straight, ...own));
  await morDone(shortRun(out, ...own, "--stop-after", "1"));
  await morDone(shortRun(preset, "--tokenizer", lost, "--stop-after", "1"));
  for (const path of [file, lost]) await Deno.remove(path, { recursive: true });
  await morDone(["train", "--out", out, "--resume"]);
  await assertSameCheckpoints(out, straight);
  await morDone(["train", "--out", preset, "--resume", "--model", "tiny"]);
  assertEquals(await savedStep(preset), 2);
});

folderTest("train --init goes on with the checkpoint's tokenizer", async (folder) => {
  const [fromPreset, fromFile] = [join(folder, "preset"), join(folder, "file")];
  await morDone(shortRun(fromPreset, "--init", model));
  await morDone(shortRun(fromFile, "--init", model, "--model", join(model, "config.json")));
  await assertSameCheckpoints(fromPreset, fromFile);
  for (const out of [fromPreset, fromFile]) {
    assertEquals(await readJson(out, TOKENIZER), await readJson(model, TOKENIZER));
    assertEquals(await readJson(out, "config.json"), await readJson(model, "config.json"));
  }
  // Without --init, a config.json's tokenizer is the one beside it.
  await morDone(shortRun(join(folder, "beside"), "--model", join(model, "config.json")));
  assertEquals(await readJson(folder, "beside", TOKENIZER), await readJson(model, TOKENIZER));
});

folderTest(
  "train --tokenizer takes files, folders and checkpoints; --dry-run counts their tokens",
  async (folder) => {
    const named = join(folder, "named.json");
    await morDone(["tokenizer", "train", "--data", corpus, "--vocab-size", "300", "--out", named]);
    const tiny = presetConfig("tiny");
    const sizes = {
      [tokenizer]: VOCABULARY,
      [join(tokenizer, TOKENIZER)]: VOCABULARY,
      [named]: 300,
      [model]: VOCABULARY,
      [gguf]: 8,
    };
    await Promise.all(
      Object.entries(sizes).map(async ([path, vocabSize]) => {
        const { stdout } = await morDone(["train", "--model", "tiny", "--tokenizer", path, "--dry-run"]);
        const parameters = parameterCount({ ...tiny, vocabSize }).toLocaleString("en");
        assert(new RegExp(`^parameters +${parameters}$`, "m").test(stdout), `${path}: ${stdout}`);
      }),
    );
    const out = join(folder, "out");
    await morDone(shortRun(out, "--tokenizer", gguf, "--validation-fraction", "0"));
    const { encode, endTokens } = await readTokenizer(out);
    assertEquals([encode("x")[0], endTokens], [1, [2]]);
  },
);

folderTest("train refuses tokenizers that are none, or that do not go with the model", async (folder) => {
  const bytes = join(folder, "bytes");
  await morDone(shortRun(bytes));
  const small = await writeConfig(join(folder, "small.json"), { change: { vocab_size: 399 } });
  const use = ["--tokenizer", tokenizer];
  const tooMany = "it has 400 tokens, the model 399 (vocab_size)";
  const isNone = "wanted a tokenizer.json, a folder with one";
  const refused: readonly (readonly [args: readonly string[], part: string])[] = [
    [
      ["--model", "135m"],
      "Cannot train 135m: its tokens are not bytes, and no tokenizer is given; give --tokenizer",
    ],
    [["--model", small, ...use], tooMany],
    [["--model", small, ...use, "--dry-run"], tooMany],
    [
      ["--tokenizer", bytes],
      `--tokenizer ${bytes}: its tokens are bytes; the presets demo and tiny have them`,
    ],
    [["--tokenizer", folder], `--tokenizer ${folder}: ${isNone}`],
    [["--tokenizer", corpus], `--tokenizer ${corpus}: ${isNone}`],
    [["--tokenizer", join(folder, "nowhere")], `nowhere: ${isNone}`],
    [["--tokenizer", join(folder, "x.json")], "x.json: no such file"],
    [["--tokenizer", join(folder, "x.gguf")], "x.gguf: no such file"],
  ];
  const out = join(folder, "out");
  await Promise.all(
    refused.map(([args, part]) => assertFails(shortRun(out, ...args), { code: 1, parts: [part] })),
  );
  await assertFails(["train", "--out", model, "--resume", ...use], {
    code: 2,
    parts: ["--tokenizer cannot be given with --resume"],
  });
  assertEquals(await Deno.stat(out).catch(() => null), null);
});
