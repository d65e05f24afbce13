/**
 * A model repository on the Hugging Face Hub: the files of one revision, and their bytes.
 *
 * What there is comes through `@huggingface/hub`. The bytes are asked for here: the package's stream turns whatever
 * went wrong into a bare string and never ends after an answer without a body, so that nothing could be resumed.
 */
import { listFiles, modelInfo } from "@huggingface/hub";
import { z } from "zod";
import { PullError } from "./pull_error.ts";

/** Where the Hub, or a mirror of it, answers. */
export interface Hub {
  /** Address without a slash at its end. */
  readonly endpoint: string;
  /** Access token, needed for private and gated models; it is sent to the endpoint alone. */
  readonly token: string | null;
}

/** A model as the user names it. */
export interface ModelSource {
  /** `OWNER/NAME`. */
  readonly id: string;
  /** Branch, tag or commit. */
  readonly revision: string;
}

/** A file of a repository. */
export interface HubFile {
  /** From the repository's top on, with slashes; not to be trusted as a path on this machine. */
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Of the bytes alone (sha256), or of git's blob, which puts `blob SIZE\0` before them (sha1). */
  readonly checksum: { readonly algorithm: "sha256" | "sha1"; readonly hex: string };
}

/** The files of one commit. */
export interface Repository {
  readonly hub: Hub;
  readonly id: string;
  readonly commit: string;
  readonly files: readonly HubFile[];
}

/** A server that says nothing for this long is not there. */
const SILENCE_MS = 60_000;

/**
 * Parts of a listing, each of a thousand files, and bytes of all answers: no repository of a model has as much, and a
 * server could go on for ever.
 */
const MAX_REQUESTS = 100;
const MAX_ANSWER_BYTES = 100_000_000;

const commitSchema = z.string().regex(/^[0-9a-f]{40}$/);
const entrySchema = z.object({
  type: z.string(),
  path: z.string(),
  size: z.int().nonnegative(),
  oid: z.string().regex(/^[0-9a-f]{40}$/),
  // Large files lie apart; `oid` is then that of the pointer that git has in their place.
  lfs: z.object({ oid: z.string().regex(/^[0-9a-f]{64}$/) }).optional(),
});

/**
 * Finds the commit that a revision stands for, and its files.
 *
 * @throws PullError when the Hub cannot be reached, refuses, or answers something else.
 */
export async function openRepository({ id, revision }: ModelSource, hub: Hub): Promise<Repository> {
  let [requests, bytes] = [0, 0];
  /** An answer that has come as a whole. */
  async function fetchWhole(url: string | URL | Request, init?: RequestInit): Promise<Response> {
    const endless = new PullError(`Cannot pull hf:${id}: the listing of ${hub.endpoint} does not end`);
    if (++requests > MAX_REQUESTS) throw endless;
    const signal = AbortSignal.timeout(SILENCE_MS);
    const response = await ask(url, { hub, id, revision, init: { signal, ...init } });
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    for await (const piece of response.body ?? []) {
      bytes += piece.length;
      if (bytes > MAX_ANSWER_BYTES) throw endless;
      pieces.push(piece);
    }
    return new Response(new Blob(pieces), { headers: response.headers });
  }
  const request = {
    hubUrl: hub.endpoint,
    ...(hub.token !== null && { accessToken: hub.token }),
    fetch: fetchWhole,
  };
  try {
    const info = await modelInfo({ name: id, revision, additionalFields: ["sha"], ...request });
    const commit = commitSchema.parse(info.sha);
    const files: HubFile[] = [];
    const listing = { repo: { type: "model", name: id }, revision: commit, recursive: true } as const;
    for await (const entry of listFiles({ ...listing, ...request })) {
      const { type, path, size, oid, lfs } = entrySchema.parse(entry);
      const checksum = lfs
        ? { algorithm: "sha256", hex: lfs.oid } as const
        : { algorithm: "sha1", hex: oid } as const;
      if (type === "file") files.push({ path, size, checksum });
    }
    return { hub, id, commit, files };
  } catch (cause) {
    if (cause instanceof PullError) throw cause;
    throw new PullError(
      `Cannot pull hf:${id}: ${hub.endpoint} does not answer as the Hub does; check HF_ENDPOINT`,
      { cause },
    );
  }
}

/**
 * The bytes of a file from `start` on, as they come.
 *
 * @throws PullError when the connection breaks or the server refuses.
 */
export async function* fetchBytes(
  { hub, id, commit }: Repository,
  { file, start }: { file: HubFile; start: number },
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const path = file.path.split("/").map(encodeURIComponent).join("/");
  // Ranges count the bytes of the file only where these are not compressed on their way.
  const headers = new Headers({ "accept-encoding": "identity" });
  if (start > 0) headers.set("range", `bytes=${start}-`);
  if (hub.token !== null) headers.set("authorization", `Bearer ${hub.token}`);
  const silence = new AbortController();
  const listen = (): ReturnType<typeof setTimeout> => setTimeout(() => silence.abort(), SILENCE_MS);
  let timer = listen();
  try {
    const response = await ask(`${hub.endpoint}/${id}/resolve/${commit}/${path}`, {
      hub,
      id,
      revision: commit,
      init: { headers, signal: silence.signal },
    });
    // A server that knows no ranges sends the whole file.
    let skip = response.status === 206 ? 0 : start;
    for await (const piece of response.body ?? []) {
      clearTimeout(timer);
      timer = listen();
      yield piece.subarray(skip);
      skip = Math.max(0, skip - piece.length);
    }
  } catch (cause) {
    if (cause instanceof PullError) throw cause;
    const message = `Cannot pull ${file.path}: the connection broke; run the same command again to go on`;
    throw new PullError(message, { cause, mayPass: true });
  } finally {
    clearTimeout(timer);
  }
}

/** `fetch` that answers or throws a PullError. Across origins it drops the token by itself. */
async function ask(
  url: string | URL | Request,
  { init, ...asked }: ModelSource & { hub: Hub; init: RequestInit },
): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    const { cause = error } = error as Error;
    const reason = (cause as Error).message.split("): ").at(-1);
    const { host } = new URL(url instanceof Request ? url.url : url);
    throw new PullError(`Cannot reach ${host}: ${reason}; check the network, and HF_ENDPOINT if it is set`, {
      cause,
      mayPass: true,
    });
  }
  if (response.ok) return response;
  await response.body?.cancel();
  throw refusal(response, asked);
}

/** What a refusal means, and what to do about it. */
function refusal(
  { status, url, headers }: Response,
  { hub, id, revision }: ModelSource & { hub: Hub },
): PullError {
  const { host, origin } = new URL(url);
  const words = headers.get("x-error-message");
  const answer = `Cannot pull hf:${id}: ${host} answers ${status}${words ? ` (${words})` : ""}; `;
  // Addresses of stored files are signed for a short time: the next try gets a new one.
  const isStorage = origin !== new URL(hub.endpoint).origin;
  if (isStorage || status === 408 || status === 429 || status >= 500) {
    return new PullError(`${answer}try again later`, { mayPass: true });
  }
  if (headers.get("x-error-code") === "RevisionNotFound") {
    return new PullError(
      `${answer}it has no revision "${revision}": give one of its branches, tags or commits`,
    );
  }
  if (hub.token !== null && (status === 401 || status === 403)) {
    const terms = `accept the model's terms, if it has any, at ${hub.endpoint}/${id}`;
    return new PullError(`${answer}HF_TOKEN does not open it: ${terms}, or use another token`);
  }
  return new PullError(
    `${answer}there is no such model, or it is private or has terms: check the name, accept its terms at ` +
      `${hub.endpoint}/${id}, and set HF_TOKEN to an access token`,
  );
}
