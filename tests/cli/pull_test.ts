/** `mor pull` as users run it, and which commands may use the network. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { COMMIT, type HubServer, serveHub } from "../support/hub_server.ts";
import {
  assertFails,
  folderTest,
  morDone,
  outcomeOf,
  programCommand,
  run,
  start,
  waitFor,
} from "../support/program.ts";

const MODEL = "owner/small";
const SOURCE = `hf:${MODEL}`;
const USAGE = 2;
const FILES = {
  "config.json": new TextEncoder().encode("{}"),
  "model.safetensors": Uint8Array.from({ length: 3_000_001 }, (_, i) => (i * 7 + (i >> 9)) % 253),
};

function environment({ endpoint }: HubServer, cache: string): Record<string, string> {
  return { HF_ENDPOINT: `${endpoint}/`, HF_TOKEN: "", XDG_CACHE_HOME: cache };
}

/** Checks that the weights came whole. */
async function assertComplete(folder: string): Promise<void> {
  const [met, wanted] = [await Deno.readFile(join(folder, "model.safetensors")), FILES["model.safetensors"]];
  assert(met.length === wanted.length && met.every((byte, i) => byte === wanted[i]), "the weights are wrong");
}

/** Names in a folder, sorted. */
function namesIn(folder: string): string[] {
  return Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
}

folderTest("pull prints the folder, and says on stderr what it does", async (cache) => {
  await using hub = serveHub(MODEL, { files: FILES });
  const env = environment(hub, cache);
  const { stdout, stderr } = await morDone(["pull", SOURCE], { env });
  const folder = join(cache, "mor", "models", "owner--small", COMMIT);
  assertEquals(stdout, `${folder}\n`);
  assertStringIncludes(stderr, `${SOURCE} at ${COMMIT}: 2 files, 2.86 MiB`);
  assertStringIncludes(stderr, "3/3 MiB");
  assertEquals(namesIn(folder), ["config.json", "model.safetensors"]);
  await assertComplete(folder);

  const out = join(cache, "else where");
  const chosen = ["--file", "*.json", "--out", out];
  const quiet = await morDone(["--quiet", "pull", `${SOURCE}@${COMMIT}`, ...chosen], { env });
  assertEquals([quiet.stdout, quiet.stderr, namesIn(out)], [`${out}\n`, "", ["config.json"]]);
  assert(hub.requests.every(({ token }) => token === null));
  await morDone(["pull", SOURCE], { env: { ...env, HF_TOKEN: "hf_secret" } });
  assertEquals(hub.requests.at(-1)!.token, "Bearer hf_secret");
});

folderTest("a killed pull goes on where it stopped", async (cache) => {
  const bytes = FILES["model.safetensors"];
  const half = bytes.length >> 1;
  // Sends half of the file and then nothing more.
  const stalled = (): Response =>
    new Response(new ReadableStream({ start: (controller) => controller.enqueue(bytes.slice(0, half)) }));
  await using hub = serveHub(MODEL, { files: FILES, answers: { "storage/model.safetensors": stalled } });
  const env = environment(hub, cache);
  const folder = join(cache, "mor", "models", "owner--small", COMMIT);
  const killed = start(programCommand(["pull", SOURCE], { env }), { env });
  await waitFor(async () => {
    const name = namesIn(folder).find((name) => name.endsWith(".unfinished"));
    return (await Deno.stat(join(folder, name!))).size === half;
  });
  killed.kill("SIGKILL");
  assertEquals((await outcomeOf(killed)).stdout, "");

  hub.state.answers = {};
  assertEquals((await morDone(["pull", SOURCE], { env })).stdout, `${folder}\n`);
  assertEquals(hub.requests.at(-1)!.range, `bytes=${half}-`);
  assertEquals(namesIn(folder), ["config.json", "model.safetensors"]);
  await assertComplete(folder);
});

folderTest("pull ends with one line about what went wrong", async (cache) => {
  await using hub = serveHub(MODEL, { files: FILES });
  const env = environment(hub, cache);
  const wrong = ["small", "owner/small", "hf:small", "https://host/owner/small"];
  for (const model of wrong) {
    await assertFails(["pull", model], { env, code: USAGE, parts: [`"${model}"`, "hf:OWNER/NAME"] });
  }
  await assertFails(["pull"], { env, code: USAGE, parts: ["Missing argument", "model"] });
  await assertFails(["pull", SOURCE], {
    env: { ...env, HF_ENDPOINT: "host" },
    code: USAGE,
    parts: ['HF_ENDPOINT is "host"', "https://"],
  });
  const line = await assertFails(["pull", SOURCE], {
    env: { ...env, HF_TOKEN: "my secret" },
    code: USAGE,
    parts: ["HF_TOKEN", "hf_"],
  });
  assert(!line.includes("secret"), "the token is shown");
  await assertFails(["pull", SOURCE], {
    env: { ...env, XDG_CACHE_HOME: "", LOCALAPPDATA: "", HOME: "" },
    code: USAGE,
    parts: ["no cache folder", "--out"],
  });
  await assertFails(["pull", "hf:owner/nothing"], { env, code: 1, parts: ["404", "no such model"] });
  await assertFails(["pull", `${SOURCE}@old`], { env, code: 1, parts: ['no revision "old"'] });
  await hub[Symbol.asyncDispose]();
  await assertFails(["pull", SOURCE], {
    env,
    code: 1,
    parts: ["Cannot reach 127.0.0.1", "check the network"],
  });
});

Deno.test({
  name: "a full disk ends a pull, which goes on when there is room",
  // Elsewhere a shell cannot limit the size of files.
  ignore: Deno.build.os === "windows",
  fn: async () => {
    const cache = await Deno.makeTempDir();
    await using hub = serveHub(MODEL, { files: FILES });
    const env = environment(hub, cache);
    const limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 2000; exec "$@"', "sh"] as const;
    const { code, stderr } = await run([...limited, ...programCommand(["pull", SOURCE, "-q"], { env })], {
      env,
    });
    assertEquals([code, stderr.split("\n").length], [1, 2], stderr);
    for (const part of ["Cannot write", "model.safetensors", "goes on where it stopped"]) {
      assertStringIncludes(stderr, part);
    }
    await morDone(["pull", SOURCE], { env });
    assert(/^bytes=\d{6,}-$/.test(hub.requests.at(-1)!.range ?? ""), "the second pull began anew");
    await Deno.remove(cache, { recursive: true });
  },
});
