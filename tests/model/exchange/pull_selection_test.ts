/** What of a repository is pulled: weights and what belongs to them, patterns, and names that nobody may follow. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { COMMIT } from "../../support/hub_server.ts";
import { parseSource } from "../../../model/exchange/pull.ts";
import {
  assertRefused,
  chosen,
  contents,
  FILES,
  MODEL,
  plan,
  pull,
  pullTest,
  text,
  weights,
} from "../../support/pull_case.ts";

pullTest("shards come with their index", {}, async (hub, cache) => {
  const shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  const names = [...shards, "model.safetensors.index.json"];
  hub.state.files = Object.fromEntries(
    [...names, "model.fp16.safetensors"].map((name, i) => [name, weights(i)]),
  );
  assertEquals(contents((await pull(hub, { cache })).folder), chosen(names, hub.state.files));
});

pullTest(
  "a GGUF file comes where there are no safetensors, if it is the only one",
  {},
  async (hub, cache) => {
    const name = "sub/model Q8_0 #1.gguf";
    hub.state.files = { "config.json": text("{}"), [name]: weights(50), "pytorch_model.bin": weights(9) };
    const { folder, model } = await pull(hub, { cache });
    assertEquals(model, join(folder, name));
    assertEquals(contents(folder), chosen(["config.json", name], hub.state.files));

    hub.state.files = { ...hub.state.files, "b-Q4_0.gguf": weights(10), "b-Q8_0.gguf": weights(20) };
    await assertRefused(plan(hub, { cache }), ["3 GGUF files", "--file", name, "b-Q4_0.gguf, b-Q8_0.gguf"]);
    const one = await pull(hub, { out: join(cache, "out") }, { patterns: ["*Q4_?.gguf"] });
    assertEquals(one.model, join(cache, "out", "b-Q4_0.gguf"));
    assertEquals(contents(one.folder), chosen(["b-Q4_0.gguf"], hub.state.files));
  },
);

pullTest("patterns choose as a shell does, and must match", {}, async (hub, cache) => {
  hub.state.files = { ...FILES, ".gitattributes": text("x"), "a+b.txt": text("y") };
  const names = async (...patterns: string[]): Promise<string[]> =>
    (await plan(hub, { cache }, { patterns })).files.map(({ path }) => path).sort();
  assertEquals(await names("*.json"), ["added_tokens.json", "config.json", "tokenizer.json"]);
  assertEquals(await names("?onfig.json", "onnx/*"), ["config.json", "onnx/model.safetensors"]);
  assertEquals(await names("a+b.txt"), ["a+b.txt"]);
  assertEquals(await names(".git*"), [".gitattributes"]);
  assertEquals((await names("*")).filter((name) => /^\.|\/|\.bin$/.test(name)), []);
  await assertRefused(names("*.json", "*.md5"), ["--file *.md5 matches none", "README.md"]);
  await assertRefused(names("*.bin"), ["--file *.bin", "never pulled", "run code"]);
  hub.state.files = { "README.md": text("# A model"), "pytorch_model.bin": weights(9) };
  await assertRefused(names(), ["neither model.safetensors nor a GGUF", "never pulled", "README.md"]);
  hub.state.files = {};
  await assertRefused(names(), ["neither model.safetensors nor a GGUF", "none"]);
});

pullTest("names that are one file, or none, on some systems are refused", {}, async (hub, cache) => {
  const patterns = ["*"];
  hub.state.files = { "a.gguf": weights(9), "A.gguf": weights(8) };
  await assertRefused(plan(hub, { cache }, { patterns }), ['"a.gguf" and "A.gguf" would be one file']);
  for (const name of ["nul", "COM1.gguf", "a.gguf.", "a.gguf ", "a?.gguf"]) {
    hub.state.files = { [name]: weights(9) };
    await assertRefused(plan(hub, { cache }, { patterns }), [name, "a name that is none here"]);
  }
  hub.state.files = { "null.gguf": weights(9), "com10.gguf": weights(8), "a.b c.gguf": weights(7) };
  assertEquals((await plan(hub, { cache }, { patterns })).files.length, 3);
});

pullTest("a listing without end is given up", {}, async (hub, cache) => {
  const tree = `tree/${COMMIT}`;
  const link = `<${hub.endpoint}/api/models/${MODEL}/${tree}>; rel="next"`;
  hub.state.answers = { [tree]: () => Response.json([], { headers: { link } }) };
  await assertRefused(plan(hub, { cache }), ["the listing of", "does not end"]);
  hub.state.answers = { [tree]: () => new Response("[" + " ".repeat(110_000_000)) };
  await assertRefused(plan(hub, { cache }), ["the listing of", "does not end"]);
});

pullTest("a listing cannot lead out of the folder", {}, async (hub, cache) => {
  const hostile = ["../evil.gguf", "a/../../evil.gguf", "/evil.gguf", "C:\\evil.gguf", "a\\..\\evil.gguf"];
  for (
    const path of [...hostile, "C:evil.gguf", "./evil.gguf", "a//evil.gguf", "a\u001b[2J.gguf", "a/..gguf/.."]
  ) {
    hub.state.files = { "model.gguf": weights(10) };
    hub.state.renamed = { "model.gguf": path };
    const patterns = path.endsWith("gguf") ? [] : [path];
    await assertRefused(plan(hub, { cache }, { patterns }), [
      path.replace("\u001b", "?"),
      "outside the folder",
    ]);
    await assertRefused(plan(hub, { cache }, { patterns: [path] }), ["outside the folder"]);
  }
  hub.state.commit = "../../evil";
  hub.state.answers = { "revision/main": () => Response.json({ _id: "1", id: "1", sha: "../../evil" }) };
  await assertRefused(plan(hub, { cache }), ["does not answer as the Hub does"]);
  assertEquals(contents(cache), {});
});

Deno.test("parseSource reads owner, name and revision, and nothing else", () => {
  assertEquals(parseSource("hf:a/b"), { id: "a/b", revision: "main" });
  assertEquals(parseSource("hf:A-1/b.c_d@refs/pr/1"), { id: "A-1/b.c_d", revision: "refs/pr/1" });
  const wrong = [
    "",
    "a/b",
    "hf:a",
    "hf:a/b/c",
    "hf:../b",
    "hf:a/..",
    "hf:a/b@",
    "hf:a /b",
    "hf:a/b@x y",
    "hf:/b",
  ];
  for (const source of wrong) assertEquals(parseSource(source), null, source);
});
