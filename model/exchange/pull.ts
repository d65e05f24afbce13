/**
 * Downloads a model: into a folder of its commit, each file under another name until its checksum is right. A killed
 * download goes on where it stopped, and what is there already is not fetched again.
 */
import { createHash } from "node:crypto";
import { basename, dirname, join } from "@std/path";
import { writeAll } from "../files/whole_file.ts";
import {
  fetchBytes,
  type Hub,
  type HubFile,
  type ModelSource,
  openRepository,
  type Repository,
} from "./hub.ts";
import { PullError } from "./pull_error.ts";
import { isGguf, selectFiles } from "./pull_selection.ts";

/** What to download, and to where. */
export interface PullRequest {
  readonly hub: Hub;
  /** Names of files, with `*` and `?`; none for what a model needs. */
  readonly patterns: readonly string[];
  /** The cache of all models, where each commit has a folder; or the one folder for the files. */
  readonly target: { readonly cache: string } | { readonly out: string };
}

/** A download that can begin. */
export interface PullPlan {
  readonly repository: Repository;
  readonly files: readonly HubFile[];
  /** Sum of the files' sizes. */
  readonly bytes: number;
  readonly folder: string;
  /** Folder of the model's other commits, which may share files; null outside the cache. */
  readonly commits: string | null;
  /** What other commands take as the model: the folder, or its only weights if they are a GGUF file. */
  readonly model: string;
}

/** How far a download is. */
export interface PullReport {
  /** File at hand. */
  readonly path: string;
  /** Bytes that are there, of all files. */
  readonly bytes: number;
}

/** Tries in a row that may bring nothing. */
const TRIES = 4;
const FIRST_WAIT_MS = 500;
/** Bytes read at once for a checksum. */
const PIECE = 1 << 20;

/** Reads `hf:OWNER/NAME[@REVISION]`, the revision being `main` unless given; null for any other text. */
export function parseSource(text: string): ModelSource | null {
  const match = /^hf:(\w[\w.-]*\/\w[\w.-]*)(?:@(\S+))?$/.exec(text);
  return match && { id: match[1]!, revision: match[2] ?? "main" };
}

/** Looks up the files. @throws PullError when they cannot be had. */
export async function planPull(
  source: ModelSource,
  { hub, patterns, target }: PullRequest,
): Promise<PullPlan> {
  const repository = await openRepository(source, hub);
  const files = selectFiles(repository, patterns);
  const commits = "cache" in target ? join(target.cache, source.id.replace("/", "--")) : null;
  const folder = "cache" in target ? join(commits!, repository.commit) : target.out;
  const weights = files.filter((file) => isGguf(file) || file.path.endsWith(".safetensors"));
  const model = weights.length === 1 && isGguf(weights[0]!) ? join(folder, weights[0]!.path) : folder;
  const bytes = files.reduce((sum, { size }) => sum + size, 0);
  return { repository, files, bytes, folder, commits, model };
}

/**
 * Brings the files of a plan into its folder.
 *
 * @throws PullError when a file cannot be fetched or written, or is not what the Hub lists; what was fetched of it
 * until then is kept unless its checksum is wrong.
 */
export async function* pullFiles(plan: PullPlan): AsyncGenerator<PullReport> {
  let before = 0;
  for (const file of plan.files) {
    const { path, size } = file;
    try {
      for await (const bytes of pullFile(plan, file)) yield { path, bytes: before + bytes };
    } catch (cause) {
      if (cause instanceof PullError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      const advice = "once it can, the same command goes on where it stopped";
      throw new PullError(`Cannot write ${join(plan.folder, path)}: ${reason}; ${advice}`, { cause });
    }
    before += size;
    yield { path, bytes: before };
  }
}

/** Yields the bytes of the file that are there. */
async function* pullFile(plan: PullPlan, file: HubFile): AsyncGenerator<number> {
  const path = join(plan.folder, file.path);
  await Deno.mkdir(dirname(path), { recursive: true });
  if (await isWhole(path, file) || await linkOther(plan, file)) return;
  const { algorithm, hex } = file.checksum;
  // Named by content, so that a rest of another revision's file is not taken for this one's.
  const unfinished = join(dirname(path), `.${basename(path)}.${hex.slice(0, 12)}.unfinished`);
  yield* fetchRest(plan.repository, { file, unfinished });
  if (await isWhole(unfinished, file)) {
    // Another process that pulls the same may put the file in its place just now.
    return await Deno.rename(unfinished, path).catch(async (error) => {
      if (!await isWhole(path, file)) throw error;
    });
  }
  if (await isWhole(path, file)) return;
  await Deno.remove(unfinished);
  throw new PullError(
    `Cannot pull ${file.path}: the ${algorithm} of what came is not ${hex}, which the Hub lists; ` +
      "it was removed, run the same command again to fetch it anew",
  );
}

/** Fetches what the unfinished file lacks; a broken connection is tried again as long as it brings something. */
async function* fetchRest(
  repository: Repository,
  { file, unfinished }: { file: HubFile; unfinished: string },
): AsyncGenerator<number> {
  using out = await Deno.open(unfinished, { write: true, create: true });
  let have = await out.seek(0, Deno.SeekMode.End);
  for (let failures = 0; have < file.size;) {
    const start = have;
    try {
      for await (const piece of fetchBytes(repository, { file, start })) {
        have += piece.length;
        if (have > file.size) {
          throw new PullError(
            `Cannot pull ${file.path}: more came than the ${file.size} bytes that the Hub lists`,
          );
        }
        await writeAll(out, piece);
        yield have;
      }
      if (have < file.size) throw endedEarly(file, have);
    } catch (error) {
      if (!(error instanceof PullError && error.mayPass)) throw error;
      failures = have > start ? 0 : failures + 1;
      if (failures === TRIES) throw error;
      if (failures > 0) await wait(FIRST_WAIT_MS * 2 ** (failures - 1));
    }
  }
  await out.sync();
}

function endedEarly({ path, size }: HubFile, have: number): PullError {
  return new PullError(
    `Cannot pull ${path}: only ${have} of ${size} bytes came; run the same command again to go on`,
    { mayPass: true },
  );
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Takes the file from another commit of the model that has the same; false if none has. */
async function linkOther({ commits, folder }: PullPlan, file: HubFile): Promise<boolean> {
  if (commits === null) return false;
  for await (const { name } of Deno.readDir(commits)) {
    const other = join(commits, name, file.path);
    // Not every file system has links; the file is then fetched.
    const link = (): Promise<boolean> =>
      Deno.link(other, join(folder, file.path)).then(() => true, () => false);
    if (await isWhole(other, file) && await link()) return true;
  }
  return false;
}

/** Whether the file at `path` is there with the right size and checksum. */
async function isWhole(path: string, { size, checksum: { algorithm, hex } }: HubFile): Promise<boolean> {
  using file = await Deno.open(path).catch(() => null);
  const info = await file?.stat();
  if (!file || !info?.isFile || info.size !== size) return false;
  const hash = createHash(algorithm);
  if (algorithm === "sha1") hash.update(`blob ${size}\0`);
  const piece = new Uint8Array(PIECE);
  for (let count; (count = await file.read(piece)) !== null;) hash.update(piece.subarray(0, count));
  return hash.digest("hex") === hex;
}
