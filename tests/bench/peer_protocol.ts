/**
 * What the bench and a peer in a process of its own say to each other: a question a line of JSON on the peer's stdin, an
 * answer likewise on its stdout. Has no packages, as the peer's process has none of this project's.
 */

/** What a peer can be asked: asynchronous methods whose arguments and results can be JSON. */
// deno-lint-ignore no-explicit-any -- arguments are checked where a peer names its own methods
export type PeerMethods<Peer> = { [Question in keyof Peer]: (...wanted: any[]) => Promise<unknown> };

export type PeerRequest<Peer extends PeerMethods<Peer>, Question extends keyof Peer> = Parameters<
  Peer[Question]
>;
export type PeerAnswer<Peer extends PeerMethods<Peer>, Question extends keyof Peer> = Awaited<
  ReturnType<Peer[Question]>
>;
export type PeerReply = { readonly answer: unknown } | { readonly error: string };

/** Splits a stream of bytes at line feeds; what follows the last one is left out. */
export async function* lines(stream: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string, void> {
  let rest = "";
  for await (const piece of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + piece).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

/** Writes a value as one line of JSON. */
export async function writeLine(
  stream: WritableStream<Uint8Array<ArrayBuffer>>,
  value: unknown,
): Promise<void> {
  const writer = stream.getWriter();
  await writer.write(new TextEncoder().encode(`${JSON.stringify(value)}\n`));
  writer.releaseLock();
}

/** The peer's side: answers one question after the other until stdin ends. */
export async function answerQuestions<Peer extends PeerMethods<Peer>>(peer: Peer): Promise<void> {
  for await (const line of lines(Deno.stdin.readable)) {
    const { question, wanted } = JSON.parse(line) as { question: keyof Peer; wanted: unknown[] };
    const reply: PeerReply = await peer[question](...wanted).then(
      (answer) => ({ answer }),
      (error) => ({ error: error instanceof Error ? error.message : String(error) }),
    );
    await writeLine(Deno.stdout.writable, reply);
  }
}
