/** A model's small files. */
import { readFull } from "./whole_file.ts";
import { CheckpointError, openForReading } from "./safetensors.ts";

/** Above all that published models have; weights under a wrong name have more. */
const MAX_BYTES = 50_000_000;

/**
 * Reads a file of text.
 *
 * @throws CheckpointError when it is not there, is too large for such a file, or not UTF-8.
 */
export async function readTextFile(path: string): Promise<string> {
  function fail(text: string): never {
    throw new CheckpointError(`Cannot load ${path}: ${text}`);
  }
  using file = await openForReading(path);
  const { size } = await file.stat();
  if (size > MAX_BYTES) fail(`it has ${size} bytes, wanted a text of at most ${MAX_BYTES}`);
  const bytes = new Uint8Array(size);
  if (!await readFull(file, bytes)) fail("it shrank while it was read");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return fail("it is not UTF-8");
  }
}
