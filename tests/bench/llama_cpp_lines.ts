/** Lines of text: what two processes say to each other, and how far a long comparison is. */

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

/** Says on stderr what is being done. */
export function note(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${text}\n`));
}
