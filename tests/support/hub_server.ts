/** A Hub of one model on this machine: its API, its files, and a storage of another origin to which large ones lead. */
import { createHash } from "node:crypto";

/** Commit that `main` stands for unless told otherwise. */
export const COMMIT = "0123456789abcdef0123456789abcdef01234567";
/** Large files are those of weights, as in every repository of the Hub. */
const LARGE = /\.(safetensors|gguf|bin)$/;

/** A request that arrived. */
export interface HubRequest {
  /** `resolve/PATH` and so on for the Hub, `storage/PATH` for the storage. */
  readonly path: string;
  readonly range: string | null;
  readonly token: string | null;
}

/** What the model consists of, and how the servers treat who asks; may be changed while they run. */
export interface HubState {
  files: Record<string, Uint8Array<ArrayBuffer>>;
  commit: string;
  /** Names that the listing gives the files instead of their own. */
  renamed: Record<string, string>;
  /** Answers by path, instead of the usual ones; a number is a status. */
  answers: Record<string, number | (() => Response)>;
  /** Only who shows this may read. */
  token: string | null;
  /** The storage's connections break after so many bytes. */
  cutAfter: number;
  knowsRanges: boolean;
}

/** The running servers. */
export interface HubServer extends AsyncDisposable {
  readonly endpoint: string;
  readonly state: HubState;
  readonly requests: HubRequest[];
}

/** Starts the servers; `model` is the one model they know. */
export function serveHub(model: string, changes: Partial<HubState> = {}): HubServer {
  const state: HubState = {
    files: {},
    commit: COMMIT,
    renamed: {},
    answers: {},
    token: null,
    cutAfter: Infinity,
    knowsRanges: true,
    ...changes,
  };
  const requests: HubRequest[] = [];
  const answer = (request: Request, path: string, usual: () => Response): Response => {
    const { headers } = request;
    requests.push({ path, range: headers.get("range"), token: headers.get("authorization") });
    const own = state.answers[path];
    return typeof own === "number" ? new Response(null, { status: own }) : own ? own() : usual();
  };
  const listen = { hostname: "127.0.0.1", port: 0, onListen: () => {} };

  const storage = Deno.serve(listen, (request) => {
    const path = decodeURIComponent(new URL(request.url).pathname.slice(1));
    return answer(request, `storage/${path}`, () => send(request, state.files[path]!, state));
  });

  const hub = Deno.serve(listen, (request) => {
    const path = decodeURIComponent(new URL(request.url).pathname);
    if (state.token !== null && request.headers.get("authorization") !== `Bearer ${state.token}`) {
      return answer(request, path, () => refuse(401, "RepoNotFound", "Invalid username or password."));
    }
    const [, place, rest = ""] = new RegExp(`^(/api/models)?/${model}/(.*)$`).exec(path) ?? [];
    return answer(request, rest, () => {
      const name = rest.replace(`resolve/${state.commit}/`, "");
      if (place !== undefined) return describe(rest, state);
      if (state.files[name] === undefined) return refuse(404, "RepoNotFound", "Repository not found");
      if (!LARGE.test(name)) return send(request, state.files[name], { ...state, cutAfter: Infinity });
      return Response.redirect(`http://127.0.0.1:${storage.addr.port}/${encodeURIComponent(name)}`, 302);
    });
  });

  return {
    endpoint: `http://127.0.0.1:${hub.addr.port}`,
    state,
    requests,
    async [Symbol.asyncDispose](): Promise<void> {
      await Promise.all([hub.shutdown(), storage.shutdown()]);
    },
  };
}

/** The API's answers: a revision's commit, a commit's files. */
function describe(rest: string, { commit, files, renamed }: HubState): Response {
  const revision = /^revision\/(.*)$/.exec(rest)?.[1];
  if (revision === "main" || revision === commit) return Response.json({ _id: "1", id: "1", sha: commit });
  if (revision !== undefined) return refuse(404, "RevisionNotFound", `Invalid rev id: ${revision}`);
  const list = Object.entries(files).map(([path, bytes]) => {
    const sha1 = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const lfs = LARGE.test(path) && { lfs: { oid: sha256, size: bytes.length, pointerSize: 130 } };
    return { type: "file", path: renamed[path] ?? path, size: bytes.length, oid: sha1, ...lfs };
  });
  return Response.json([{ type: "directory", path: "onnx", size: 0, oid: commit }, ...list]);
}

function refuse(status: number, code: string, message: string): Response {
  return new Response(null, { status, headers: { "x-error-code": code, "x-error-message": message } });
}

function send(
  request: Request,
  bytes: Uint8Array<ArrayBuffer>,
  { cutAfter, knowsRanges }: HubState,
): Response {
  const range = knowsRanges ? /^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "") : null;
  const part = bytes.subarray(Number(range?.[1] ?? 0));
  const body = new ReadableStream({
    start(controller): void {
      controller.enqueue(part.slice(0, cutAfter));
      controller.close();
    },
  });
  // Where the body is shorter than its announced length, the connection breaks.
  return new Response(body, {
    status: range ? 206 : 200,
    headers: { "content-length": String(part.length) },
  });
}
