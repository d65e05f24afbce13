/** Lines of text that two processes exchange. */

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
