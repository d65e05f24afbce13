/** Hubs that answer what they should not. The input is what such a one says, as JSON. */
import { assert, assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { join } from "@std/path";
import { planPull, pullFiles } from "../../../model/exchange/pull.ts";
import { mutatedJson } from "../../support/json_mutations.ts";
import { createRandom } from "../../support/random.ts";
import { type FuzzInput, type FuzzKind, isDone } from "../fuzz_kind.ts";

const NAME = "hub.json";
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const MODEL = "owner/model";

/** Where a file lies that nobody may touch. */
const KEPT = "kept.txt";

interface Entry {
  type: string;
  path: string;
  size: number;
  oid: string;
  lfs?: { oid: string; size: number };
}

/** What a Hub answers. */
interface HubStory {
  info: Record<string, unknown>;
  tree: unknown[];
  /** Address of the next part of the listing: this one again, if it is "again". */
  next: string;
  /** Contents by path; there are no others. */
  bodies: Record<string, string>;
  /** Where a file's request is sent to. */
  redirect: string;
  status: number;
  patterns: string[];
}

const PATHS = [
  ...[
    "../evil.gguf",
    "/tmp/evil.gguf",
    "a/../../evil.gguf",
    "..",
    ".",
    "",
    "/",
    "a//b.gguf",
    "./a.gguf",
    "a/.",
    "a/",
  ],
  ...[
    "C:\\evil.gguf",
    "C:evil.gguf",
    "\\\\host\\evil.gguf",
    "a\\..\\..\\evil.gguf",
    "file:///evil.gguf",
    "~/evil.gguf",
  ],
  ...[
    "evil\u0000.gguf",
    "a\n.gguf",
    "\u001b[2J.gguf",
    "\u202ea.gguf",
    "NUL",
    "con.gguf",
    "aux",
    "COM1.safetensors",
    "a.",
  ],
  ...[
    "a .gguf ",
    "a:b",
    "a*.gguf",
    "a?.gguf",
    "<a>.gguf",
    "x".repeat(300) + ".gguf",
    "a/".repeat(200) + "b.gguf",
  ],
  ...[
    "Config.json",
    "CONFIG.JSON",
    "model.safetensors",
    "MODEL.safetensors",
    "config.json/x",
    "é.gguf",
    "e\u0301.gguf",
  ],
  ...[
    "%2e%2e/evil.gguf",
    "..%2fevil.gguf",
    "a\uD800.gguf",
    "．．/evil.gguf",
    ".git/hooks/post-checkout",
    ".bashrc",
  ],
  ...[
    KEPT,
    `../${KEPT}`,
    "model.gguf",
    ".model.gguf.000000000000.unfinished",
    "a*a*a*a*a*a*a*b.gguf",
    "a".repeat(200),
  ],
];

function sha1(text: string): string {
  const { length } = new TextEncoder().encode(text);
  return createHash("sha1").update(`blob ${length}\0`).update(text).digest("hex");
}

function entry(path: string, text: string): Entry {
  return { type: "file", path, size: new TextEncoder().encode(text).length, oid: sha1(text) };
}

function hubStory(seed: number): HubStory | string {
  const random = createRandom(seed ^ 0x4b);
  const pick = <T>(choices: readonly T[]): T => choices[random.integer(choices.length)]!;
  const bodies: Record<string, string> = {
    "config.json": "{}",
    "model.safetensors": "weights",
    "model.gguf": "gguf",
  };
  const names = ["config.json", pick(["model.safetensors", "model.gguf"]), pick(Object.keys(bodies))];
  const tree: unknown[] = names.map((name) => entry(name, bodies[name]!));
  for (let count = random.integer(4); count > 0; count--) {
    const path = pick(PATHS);
    tree.splice(random.integer(tree.length + 1), 0, entry(path, path));
    bodies[path] = random.integer(8) === 0 ? "something else" : path;
  }
  const one = pick(tree) as Entry;
  const changes = [
    () => one.size = pick([0, 1, 2, 3, Number.MAX_SAFE_INTEGER, one.size - 1, -1, 0.5]),
    () => one.oid = pick([COMMIT, "", "../../evil", one.oid.toUpperCase(), one.oid.slice(1)]),
    () => one.lfs = { oid: pick(["f".repeat(64), "../evil", ""]), size: 3 },
    () => one.type = pick(["directory", "symlink", "submodule", "unknown"]),
    () => tree.push({ ...one, oid: COMMIT }),
    () => bodies[one.path] = pick(["x".repeat(one.size), "y".repeat(100_000)]),
    () => {},
    () => {},
  ];
  pick(changes)();
  const story: HubStory = {
    info: { _id: "1", id: MODEL, sha: pick([COMMIT, COMMIT, COMMIT, COMMIT, "../../evil", "", "main"]) },
    tree,
    next: random.integer(12) === 0
      ? pick(["again", "file:///etc/passwd", "http://127.0.0.1:1/", "nothing"])
      : "",
    bodies,
    redirect: random.integer(12) === 0
      ? pick(["again", "file:///etc/hostname", "data:,evil", "http://127.0.0.1:1/", "//"])
      : "",
    status: random.integer(12) === 0 ? pick([206, 304, 404, 401, 416]) : 200,
    patterns: pick([[], [], ["*"], ["*", "*/*", "../*", ".*"], ["*a*a*a*a*b"], ["*.gguf"]]),
  };
  return random.integer(4) === 0 ? mutatedJson(story, { seed }) : story;
}

/** A Hub on this machine that tells one story after the other. */
export function openHub(): Promise<FuzzKind> {
  let story: HubStory;
  const listen = { hostname: "127.0.0.1", port: 0, onListen: () => {} };
  const server = Deno.serve(listen, (request) => answer(new URL(request.url), story));
  const endpoint = `http://127.0.0.1:${server.addr.port}`;

  function make(seed: number): FuzzInput {
    const made = hubStory(seed);
    const text = typeof made === "string" ? made : JSON.stringify(made);
    return { name: NAME, bytes: new TextEncoder().encode(text) };
  }
  async function check({ bytes }: FuzzInput, folder: string): Promise<boolean> {
    let told: HubStory;
    try {
      told = JSON.parse(new TextDecoder().decode(bytes));
    } catch {
      return false;
    }
    story = told;
    const out = join(folder, "out");
    await Deno.writeTextFile(join(folder, KEPT), KEPT);
    const { patterns } = told;
    const isAccepted = await isDone(async () => {
      const plan = await planPull({ id: MODEL, revision: "main" }, {
        hub: { endpoint, token: "hf_secret" },
        patterns: Array.isArray(patterns) ? patterns.filter((pattern) => typeof pattern === "string") : [],
        target: { out },
      });
      const wanted = plan.files.map(({ path }) => path);
      for await (const { path } of pullFiles(plan)) assert(wanted.includes(path), path);
      const there = [...filesOf(out)].filter((name) => !name.endsWith(".unfinished")).sort();
      assertEquals(there, [...new Set(wanted)].sort());
      for (const { path, size, checksum: { algorithm, hex } } of plan.files) {
        const content = await Deno.readFile(join(out, path));
        assertEquals(content.length, size, path);
        if (algorithm === "sha1") assertEquals(sha1(new TextDecoder().decode(content)), hex, path);
      }
    }, { names: ["hf:owner/model", "Cannot pull ", "Cannot reach ", out] });
    assertEquals([...filesOf(folder)].filter((name) => !name.startsWith("out/")), [KEPT]);
    assertEquals(await Deno.readTextFile(join(folder, KEPT)), KEPT);
    return isAccepted;
  }
  // A broken connection is tried again after a while.
  return Promise.resolve({ make, check, maxMs: 10_000, close: () => server.shutdown() });
}

function answer(url: URL, story: HubStory): Response {
  const path = decodeURIComponent(url.pathname);
  const { info, tree, next, bodies, redirect, status } = story ?? {};
  if (path.startsWith(`/api/models/${MODEL}/revision/`)) return json(info);
  if (path.startsWith(`/api/models/${MODEL}/tree/`)) {
    // Headers take nothing else.
    const isPlain = typeof next === "string" && /^[ -~]+$/.test(next);
    const link: HeadersInit = isPlain ? { link: `<${next === "again" ? url : next}>; rel="next"` } : {};
    return json(tree, link);
  }
  if (redirect && typeof redirect === "string") {
    const location = redirect === "again" ? String(url) : redirect;
    return new Response(null, { status: 302, headers: { location } });
  }
  const name = path.replace(/^\/owner\/model\/resolve\/[^/]*\//, "");
  const body = bodies?.[name];
  if (body === undefined) return new Response(null, { status: 404 });
  const code = Number.isInteger(status) && status >= 200 && status < 500 ? status : 500;
  return new Response([204, 304].includes(code) ? null : String(body), { status: code });
}

function json(value: unknown, headers: HeadersInit = {}): Response {
  return new Response(JSON.stringify(value) ?? "", {
    headers: { "content-type": "application/json", ...headers },
  });
}

/** Files under a folder, by their paths from there; links are not followed. */
function* filesOf(folder: string): Generator<string> {
  let entries: Deno.DirEntry[] = [];
  try {
    entries = [...Deno.readDirSync(folder)];
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  for (const { name, isDirectory } of entries) {
    if (!isDirectory) yield name;
    else for (const inner of filesOf(join(folder, name))) yield `${name}/${inner}`;
  }
}
