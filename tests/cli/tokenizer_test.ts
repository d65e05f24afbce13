/** `mor tokenizer train`; the vocabulary itself is tested in tests/model/text/bpe_trainer_test.ts. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { readTokenizer } from "../../model/text/tokenizer_json.ts";
import { assertFails, corpus, folderTest, mor, morDone, programCommand, start } from "../support/program.ts";

const FILES = ["tokenizer.json", "tokenizer_config.json"];

function trainArgs(out: string, ...more: readonly string[]): string[] {
  const data = more.includes("--data") ? [] : ["--data", corpus];
  const size = more.includes("--vocab-size") ? [] : ["--vocab-size", "400"];
  return ["tokenizer", "train", "--out", out, ...data, ...size, ...more];
}

function namesIn(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
}

folderTest(
  "tokenizer train writes a tokenizer that reads its text back, the same in every run",
  async (folder) => {
    const [once, again] = [join(folder, "once"), join(folder, "again", "named.json")];
    const { stdout, stderr } = await morDone(trainArgs(once));
    assertEquals(stdout, "");
    assertStringIncludes(stderr, "read 5.24 KiB: ");
    assert(/saved in .*tokenizer\.json: 400 tokens, 1\.\d\d bytes of this text each\n$/.test(stderr), stderr);
    await morDone(trainArgs(again, "-q"));
    assertEquals([namesIn(once), namesIn(join(folder, "again"))], [FILES, ["named.json", FILES[1]]]);
    assertEquals(await Deno.readTextFile(join(once, FILES[0]!)), await Deno.readTextFile(again));

    const tokenizer = await readTokenizer(once);
    assertEquals([tokenizer.vocabSize, tokenizer.endOfText, tokenizer.endTokens], [400, 0, [0]]);
    const text = await Deno.readTextFile(corpus);
    const ids = tokenizer.encode(text);
    const bytesPerToken = new TextEncoder().encode(text).length / ids.length;
    assertStringIncludes(stderr, `${bytesPerToken.toFixed(2)} bytes of this text each`);
    const decoder = tokenizer.decoder();
    assertEquals(ids.map((id) => decoder.push(id)).join("") + decoder.flush(), text);
  },
);

folderTest("tokenizer train reads folders and JSONL and takes special tokens", async (folder) => {
  const [data, out] = [join(folder, "data"), join(folder, "out")];
  await Deno.mkdir(data);
  await Deno.writeTextFile(join(data, "a.jsonl"), '{"body": "abab"}\n{"body": ""}\n{"body": "ab"}\n');
  await Deno.writeTextFile(join(data, "b.txt"), "ab");
  const special = ["--special", "<|user|>", "--special", "<|end|>"];
  const args = trainArgs(out, "--data", data, "--text-field", "body", ...special, "--vocab-size", "1000");
  const { stderr } = await morDone(args);
  assertStringIncludes(
    stderr,
    "only 260 of 1,000 tokens, 2.00 bytes of this text each: no further pair is 2 times in it; " +
      "for a larger vocabulary give more text or a lower --min-frequency\n",
  );
  const { encode, endTokens } = await readTokenizer(out);
  assertEquals(encode("<|user|>abab<|end|><|endoftext|>"), [1, 259, 259, 2, 0]);
  assertEquals(endTokens, [0]);
  const config = JSON.parse(await Deno.readTextFile(join(out, FILES[1]!)));
  assertEquals(config.additional_special_tokens, ["<|user|>", "<|end|>"]);

  const all = await morDone(trainArgs(join(folder, "all"), ...args.slice(4), "--min-frequency", "1"));
  assertStringIncludes(all.stderr, "only 261 of 1,000 tokens");
  assertStringIncludes(
    all.stderr,
    "no further pair is left to merge; for a larger vocabulary give more text\n",
  );
});

folderTest("tokenizer train refuses what it cannot do", async (folder) => {
  const out = join(folder, "out");
  const usage = (parts: readonly string[], ...more: string[]): Promise<string> =>
    assertFails(trainArgs(out, ...more), { code: 2, parts });
  await usage(["--vocab-size is 256, wanted 257 or more: 256 bytes, 1 special token"], "--vocab-size", "256");
  await usage(
    ["--vocab-size is 257, wanted 258 or more: 256 bytes, 2 special tokens"],
    ...["--vocab-size", "257", "--special", "x"],
  );
  await usage(["--min-frequency is 0, wanted 1 or more"], "--min-frequency", "0");
  await usage(['--special is "<|endoftext|>", wanted'], "--special", "<|endoftext|>");
  await usage(['--special is "x", wanted'], "--special", "x", "--special", "x");
  const missing = join(folder, "missing.txt");
  await assertFails(trainArgs(out, "--data", missing), {
    code: 1,
    parts: [missing, "no such file or folder"],
  });
  const empty = join(folder, "empty.jsonl");
  await Deno.writeTextFile(empty, '{"text": ""}\n');
  await assertFails(trainArgs(out, "--data", empty), {
    code: 1,
    parts: [`Cannot learn from ${empty}: every document is empty; give more text`],
  });
  assertEquals(namesIn(folder), ["empty.jsonl"]);
  for (const name of FILES) {
    const other = await Deno.makeTempDir({ dir: folder });
    await Deno.writeTextFile(join(other, name), "{}");
    const parts = [
      `Cannot write ${join(other, name)}: there is one already; remove it or give another --out`,
    ];
    await assertFails(trainArgs(other), { code: 1, parts });
    assertEquals([namesIn(other), await Deno.readTextFile(join(other, name))], [[name], "{}"]);
  }
});

folderTest("tokenizer train ends on Ctrl-C with 130 and writes nothing", async (folder) => {
  const data = join(folder, "data.txt");
  await Deno.writeTextFile(data, Array.from({ length: 2_000_000 }, (_, i) => i.toString(36)).join(" "));
  const child = start(
    programCommand(trainArgs(join(folder, "out"), "--data", data, "--vocab-size", "50000")),
  );
  let stderr = "";
  for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) {
    if (stderr === "") child.kill("SIGINT");
    stderr += text;
  }
  await child.stdout.cancel();
  assertEquals((await child.status).code, 130, stderr);
  assertStringIncludes(stderr, "mor: interrupted; nothing was written\n");
  assertEquals(namesIn(folder), ["data.txt"]);
});

Deno.test("tokenizer without a command shows its help, and an unknown one is refused", async () => {
  assertStringIncludes((await morDone(["tokenizer"])).stdout, "train");
  const help = (await morDone(["tokenizer", "train", "--help"])).stdout;
  const flags = [
    "--data",
    "--text-field",
    "--vocab-size",
    "--min-frequency",
    "--special",
    "--out",
    "--quiet",
  ];
  for (const flag of flags) assertStringIncludes(help, flag);
  assertEquals((await mor(["tokenizer", "trian"])).code, 2);
});
