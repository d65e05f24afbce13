/** A small model on a Hub of its own, and pulling it within the test's process. */
import { createHash } from "node:crypto";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import type { ModelSource } from "../../model/exchange/hub.ts";
import { planPull, pullFiles, type PullPlan } from "../../model/exchange/pull.ts";
import { PullError } from "../../model/exchange/pull_error.ts";
import { type HubServer, type HubState, serveHub } from "./hub_server.ts";

/** Name of the model that the Hub knows. */
export const MODEL = "owner/small.model";
const SOURCE: ModelSource = { id: MODEL, revision: "main" };

/** The UTF-8 bytes of a text. */
export function text(words: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(words);
}

/** Bytes that do not repeat soon. */
export function weights(length: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + (i >> 8)) % 251);
}

/** What the model consists of. */
export const FILES = {
  "README.md": text("# A model"),
  "config.json": text('{"model_type": "llama"}'),
  "tokenizer.json": text("{}"),
  "added_tokens.json": new Uint8Array(),
  "model.safetensors": weights(200_003),
  "pytorch_model.bin": weights(100),
  "onnx/model.safetensors": weights(90),
  "consolidated.safetensors": weights(80),
};
/** Those of its files that a pull brings unless told otherwise. */
export const NEEDED = ["added_tokens.json", "config.json", "model.safetensors", "tokenizer.json"];

/** Registers a test that gets a Hub with the files above and an empty cache. */
export function pullTest(
  name: string,
  changes: Partial<HubState>,
  body: (hub: HubServer, cache: string) => Promise<void>,
): void {
  Deno.test(name, async () => {
    const cache = await Deno.makeTempDir();
    await using hub = serveHub(MODEL, { files: FILES, ...changes });
    try {
      await body(hub, cache);
    } finally {
      await Deno.remove(cache, { recursive: true });
    }
  });
}

/** What is pulled, and as whom. */
export interface Choice {
  readonly patterns?: readonly string[];
  readonly token?: string;
  readonly source?: ModelSource;
}

/** Looks up what a pull would bring. */
export async function plan(
  { endpoint }: HubServer,
  folder: { cache: string } | { out: string },
  { patterns = [], token, source = SOURCE }: Choice = {},
): Promise<PullPlan> {
  return await planPull(source, { hub: { endpoint, token: token ?? null }, patterns, target: folder });
}

/** Pulls, and checks that the reports go up to the sum of the sizes. */
export async function pull(
  hub: HubServer,
  folder: { cache: string } | { out: string },
  choice: Choice = {},
): Promise<PullPlan> {
  const made = await plan(hub, folder, choice);
  let last = 0;
  for await (const { bytes } of pullFiles(made)) {
    assert(bytes >= last && bytes <= made.bytes, `${bytes} after ${last} of ${made.bytes}`);
    last = bytes;
  }
  assertEquals(last, made.bytes);
  return made;
}

/** The folder's files and the checksums of what they hold, from its top on; unfinished ones too. */
export function contents(folder: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const { name, isDirectory } of Deno.readDirSync(folder)) {
    const path = join(folder, name);
    if (!isDirectory) found[name] = checksum(Deno.readFileSync(path));
    else for (const [inner, hex] of Object.entries(contents(path))) found[`${name}/${inner}`] = hex;
  }
  return found;
}

/** Some of the files, as `contents` gives them. */
export function chosen(
  names: readonly string[],
  files: Record<string, Uint8Array> = FILES,
): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, checksum(files[name]!)]));
}

function checksum(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Paths that were asked for beyond the API. */
export function downloads({ requests, state }: HubServer): string[] {
  return requests.map(({ path }) => path).filter((path) => /^(resolve|storage)\//.test(path))
    .map((path) => path.replace(`resolve/${state.commit}/`, ""));
}

/** Checks that work ends with a PullError of one line that has all the parts. */
export async function assertRefused(work: Promise<unknown>, parts: readonly string[]): Promise<void> {
  const { message } = await assertRejects(() => work, PullError);
  for (const part of parts) assertStringIncludes(message, part);
  assert(!message.includes("\n"), message);
}
