/** Downloads from a Hub on this machine: whole, resumed, refused, and never twice. */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { pullFiles } from "../../../model/exchange/pull.ts";
import { COMMIT } from "../../support/hub_server.ts";
import {
  assertRefused,
  chosen,
  contents,
  downloads,
  FILES,
  MODEL,
  NEEDED,
  plan,
  pull,
  pullTest,
  text,
  weights,
} from "../../support/pull_case.ts";

pullTest("a pull brings weights, settings and tokenizer, and nothing else", {}, async (hub, cache) => {
  const { folder, model } = await pull(hub, { cache });
  assertEquals([folder, model], [join(cache, "owner--small.model", COMMIT), folder]);
  assertEquals(contents(folder), chosen(NEEDED));
  // Nothing is fetched twice, neither for the same folder...
  const before = downloads(hub).length;
  await pull(hub, { cache });
  assertEquals(downloads(hub).length, before);
  // ... nor what has not changed in another commit.
  hub.state.commit = COMMIT.replace("0", "f");
  hub.state.files = { ...FILES, "config.json": text('{"model_type": "mor_llama"}') };
  const next = await pull(hub, { cache });
  assertEquals(downloads(hub).slice(before), ["config.json"]);
  assertEquals(contents(next.folder), chosen(NEEDED, hub.state.files));
  assertEquals(contents(folder), chosen(NEEDED));
});

pullTest("a changed file in a folder of one's own is fetched anew", {}, async (hub, cache) => {
  const out = join(cache, "a", "b");
  const { model } = await pull(hub, { out });
  assertEquals([model, contents(out)], [out, chosen(NEEDED)]);
  await Deno.writeFile(join(out, "model.safetensors"), new Uint8Array(FILES["model.safetensors"].length));
  const before = downloads(hub).length;
  await pull(hub, { out });
  assertEquals(contents(out), chosen(NEEDED));
  assertEquals(downloads(hub).slice(before), ["model.safetensors", "storage/model.safetensors"]);
});

pullTest("a broken connection is taken up again where it broke", { cutAfter: 70_000 }, async (hub, cache) => {
  const { folder } = await pull(hub, { cache });
  assertEquals(contents(folder), chosen(NEEDED));
  const ranges = hub.requests.filter(({ path }) => path === "storage/model.safetensors").map(({ range }) =>
    range
  );
  assertEquals(ranges, [null, "bytes=70000-", "bytes=140000-"]);
});

for (const knowsRanges of [true, false]) {
  pullTest(
    `what a killed pull left is completed ${knowsRanges ? "by ranges" : "by a server without ranges"}`,
    { knowsRanges },
    async (hub, cache) => {
      const made = await plan(hub, { cache });
      for await (const { path } of pullFiles(made)) if (path === "model.safetensors") break;
      const left = Object.keys(contents(made.folder)).find((name) => name.endsWith(".unfinished"));
      assert(left?.startsWith(".model.safetensors."), left);
      await Deno.truncate(join(made.folder, left!), 1001);
      await pull(hub, { cache });
      assertEquals(contents(made.folder), chosen(NEEDED));
      assertEquals(hub.requests.at(-1)!.range, "bytes=1001-");
    },
  );
}

pullTest(
  "what a killed pull left of a file that has changed since is not gone on with",
  {},
  async (hub, cache) => {
    const out = join(cache, "out");
    for await (const { path } of pullFiles(await plan(hub, { out }))) if (path === "model.safetensors") break;
    hub.state.files = { ...FILES, "model.safetensors": weights(300_000).reverse() };
    await pull(hub, { out });
    assertEquals(contents(out)["model.safetensors"], chosen(NEEDED, hub.state.files)["model.safetensors"]);
  },
);

pullTest("two pulls of the same model at once both succeed", { cutAfter: 50_000 }, async (hub, cache) => {
  const [one, other] = await Promise.all([pull(hub, { cache }), pull(hub, { cache })]);
  assertEquals(contents(one.folder), chosen(NEEDED));
  assertEquals(one.folder, other.folder);
});

pullTest("a wrong checksum is refused, small file or large", {}, async (hub, cache) => {
  const cases = [["config.json", "config.json", "sha1"], [
    "model.safetensors",
    "storage/model.safetensors",
    "sha256",
  ]];
  for (const [name, path, algorithm] of cases as [keyof typeof FILES, string, string][]) {
    const wrong = FILES[name].slice();
    wrong[5]! ^= 1;
    const key = path === name ? `resolve/${COMMIT}/${name}` : path;
    hub.state.answers = { [key]: () => new Response(wrong) };
    await assertRefused(pull(hub, { cache }), [name, algorithm, "run the same command again"]);
    const names = Object.keys(contents(cache)).map((inner) => inner.split("/").at(-1)!);
    assertEquals(names.filter((inner) => inner.includes(name)), []);
  }
  hub.state.answers = {};
  assertEquals(contents((await pull(hub, { cache })).folder), chosen(NEEDED));
});

pullTest("more or fewer bytes than listed are refused", {}, async (hub, cache) => {
  const { length } = FILES["model.safetensors"];
  hub.state.answers = { "storage/model.safetensors": () => new Response(weights(length + 1)) };
  await assertRefused(pull(hub, { cache }), ["model.safetensors", `more came than the ${length} bytes`]);
  await Deno.remove(cache, { recursive: true });
  hub.state.answers = { "storage/model.safetensors": () => new Response(null) };
  await assertRefused(pull(hub, { cache }), ["model.safetensors", `only 0 of ${length} bytes`]);
});

pullTest("a busy server is asked again, some times", {}, async (hub, cache) => {
  // The storage also forbids what comes after its signed address has run out.
  const refusals = [503, 403];
  const path = "storage/model.safetensors";
  hub.state.answers = {
    [path]: () => {
      const status = refusals.pop();
      return status ? new Response(null, { status }) : new Response(FILES["model.safetensors"]);
    },
  };
  assertEquals(contents((await pull(hub, { cache })).folder), chosen(NEEDED));
  assertEquals(downloads(hub).filter((name) => name === path).length, 3);
  hub.state.answers = { "revision/main": 429 };
  await assertRefused(plan(hub, { cache }), ["answers 429", "try again later"]);
});

pullTest(
  "the token opens a private model, and the storage never sees it",
  { token: "hf_right" },
  async (hub, cache) => {
    await assertRefused(plan(hub, { cache }), ["401 (Invalid username or password.)", "HF_TOKEN"]);
    await assertRefused(plan(hub, { cache }, { token: "hf_wrong" }), ["401", "HF_TOKEN does not open it"]);
    hub.requests.length = 0;
    assertEquals(contents((await pull(hub, { cache }, { token: "hf_right" })).folder), chosen(NEEDED));
    for (const { path, token } of hub.requests) {
      assertEquals(token, path.startsWith("storage/") ? null : "Bearer hf_right", path);
    }
  },
);

pullTest("what the Hub refuses is named", {}, async (hub, cache) => {
  const none = { id: "owner/nothing", revision: "main" };
  await assertRefused(plan(hub, { cache }, { source: none }), ["hf:owner/nothing", "404", "check the name"]);
  const unknown = { id: MODEL, revision: "v9/x" };
  await assertRefused(plan(hub, { cache }, { source: unknown }), ['no revision "v9/x"', "branches"]);
  hub.state.answers = { "revision/main": 403 };
  await assertRefused(plan(hub, { cache }, { token: "hf_x" }), ["403", "accept the model's terms", MODEL]);
  const odd = [() => new Response("<html>"), () => Response.json({}), () => Response.json([{ path: 3 }])];
  for (const answer of odd) {
    for (const path of ["revision/main", `tree/${COMMIT}`]) {
      hub.state.answers = { [path]: answer };
      await assertRefused(plan(hub, { cache }), [hub.endpoint, "does not answer as the Hub", "HF_ENDPOINT"]);
    }
  }
  assertEquals(contents(cache), {});
});

pullTest("without a connection the host is named", {}, async (hub, cache) => {
  await hub[Symbol.asyncDispose]();
  await assertRefused(plan(hub, { cache }), ["Cannot reach 127.0.0.1:", "refused", "check the network"]);
});

pullTest("a file that cannot be written is named", {}, async (hub, cache) => {
  const out = join(cache, "out");
  await Deno.writeTextFile(out, "in the way");
  await assertRefused(pull(hub, { out }), [`Cannot write ${out}`, "goes on where it stopped"]);
});
