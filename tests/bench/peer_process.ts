/** Starts a peer in a process of its own and asks it. */
import { fromFileUrl, join } from "@std/path";
import { ConfigError } from "../../model/config.ts";
import { oneLine } from "../../model/files/one_line.ts";
import {
  lines,
  type PeerAnswer,
  type PeerMethods,
  type PeerReply,
  type PeerRequest,
  writeLine,
} from "./peer_protocol.ts";

/** Characters of what a peer says about a failure: compilers quote whole programs. */
const MAX_REASON = 500;

/** An npm package that the user has installed in a folder, and how messages call it. */
export interface PeerPackage {
  /** What runs: `llama.cpp`. */
  readonly title: string;
  readonly name: string;
  readonly version: string;
  /** The flag that names the folder. */
  readonly flag: string;
}

/**
 * The folder's full path.
 *
 * @throws ConfigError when it lacks the package.
 */
export async function packageFolder(
  path: string,
  { title, name, version, flag }: PeerPackage,
): Promise<string> {
  const isThere = await Deno.stat(join(path, "node_modules", name)).then(() => true, () => false);
  if (isThere) return await Deno.realPath(path);
  throw new ConfigError(
    `Cannot run ${title}: ${path} has no node_modules/${name}; ` +
      `make a folder, run \`npm install ${name}@${version}\` in it and name it by ${flag}`,
  );
}

/** A script of this folder without this project's packages: it has its own, or none. */
export function peerCommand(
  script: string,
  { permissions, ...options }: Deno.CommandOptions & { permissions: readonly string[] },
): Deno.Command {
  const path = fromFileUrl(new URL(script, import.meta.url));
  const flags = ["--quiet", "--no-config", "--no-lock", "--no-prompt", "--node-modules-dir=manual"];
  const args = ["run", ...flags, ...permissions, path, ...options.args ?? []];
  return new Deno.Command(Deno.execPath(), { ...options, args });
}

/** A running peer; it answers one question after the other. */
export class PeerProcess<Peer extends PeerMethods<Peer>> {
  readonly #process: Deno.ChildProcess;
  readonly #replies: AsyncGenerator<string, void>;
  readonly #title: string;
  readonly #advice: string;

  /** @param command Its stdin and stdout are pipes. */
  constructor(command: Deno.Command, { title, advice }: {
    /** What runs, in messages. */
    title: string;
    /** What to do when it ends unasked. */
    advice: string;
  }) {
    this.#process = command.spawn();
    this.#replies = lines(this.#process.stdout);
    this.#title = title;
    this.#advice = advice;
  }

  /** @throws ConfigError when the peer cannot, or has ended. */
  async ask<Question extends keyof Peer>(
    question: Question,
    ...wanted: PeerRequest<Peer, Question>
  ): Promise<PeerAnswer<Peer, Question>> {
    // A process that has ended is noticed by its missing answer.
    await writeLine(this.#process.stdin, { question, wanted }).catch(() => {});
    const { done, value } = await this.#replies.next();
    if (done) {
      throw new ConfigError(
        `Cannot run ${this.#title}: it ended without an answer to "${String(question)}", ` +
          `and what it said stands above; ${this.#advice}`,
      );
    }
    const reply = parseReply(value);
    if ("answer" in reply) return reply.answer as PeerAnswer<Peer, Question>;
    throw new ConfigError(`Cannot run ${this.#title}: ${oneLine(reply.error, { most: MAX_REASON })}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stdin.close().catch(() => {});
    await this.#replies.return();
    await this.#process.status;
  }
}

/** A library may write to stdout too when it fails. */
function parseReply(line: string): PeerReply {
  try {
    return JSON.parse(line);
  } catch {
    return { error: `it said "${line}" in place of an answer` };
  }
}
