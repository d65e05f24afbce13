/** Files that are written whole or not at all. */
import { basename, dirname, join, resolve } from "@std/path";

/** Suffix of files in the making; what a killed run leaves under it is never read. */
const UNFINISHED = ".unfinished";

/**
 * Puts a file in place in one step: written under another name, synced, checked, renamed, and the folder synced.
 * Whenever the process or the machine stops, the old file or the new one is there, complete.
 *
 * @param verify Reads the unfinished file back and throws if it is not what was meant.
 */
export async function replaceFile(
  path: string,
  { write, verify }: {
    write: (file: Deno.FsFile) => Promise<void>;
    verify?: (unfinishedPath: string) => Promise<void>;
  },
): Promise<void> {
  const unfinished = join(dirname(path), `.${basename(path)}${UNFINISHED}`);
  try {
    using file = await Deno.open(unfinished, { write: true, create: true, truncate: true });
    await write(file);
    await file.sync();
    await verify?.(unfinished);
    await Deno.rename(unfinished, path);
  } catch (cause) {
    await Deno.remove(unfinished).catch(() => {});
    throw cause;
  }
  await syncFolder(dirname(path));
}

/**
 * Makes a folder, and those above it that are not there, so that they survive a power cut: a folder that was synced is
 * lost all the same if the one that holds its name was not.
 */
export async function makeFolder(folder: string): Promise<void> {
  const path = resolve(folder);
  const isThere = await Deno.stat(path).then(({ isDirectory }) => isDirectory, () => false);
  if (isThere) return;
  const parent = dirname(path);
  if (parent !== path) await makeFolder(parent);
  // Another process may make it meanwhile.
  await Deno.mkdir(path, { recursive: true });
  await syncFolder(parent);
}

/** Makes a rename in the folder survive a power cut. Windows has no such call and needs none. */
export async function syncFolder(path: string): Promise<void> {
  if (Deno.build.os === "windows") return;
  using folder = await Deno.open(path);
  await folder.sync();
}

/** Writes all bytes at the file's current place. */
export async function writeAll(file: Deno.FsFile, bytes: Uint8Array): Promise<void> {
  for (let written = 0; written < bytes.length;) written += await file.write(bytes.subarray(written));
}

/** Fills `bytes` from the file's current place; false if the file ends before. */
export async function readFull(file: Deno.FsFile, bytes: Uint8Array): Promise<boolean> {
  for (let filled = 0; filled < bytes.length;) {
    const count = await file.read(bytes.subarray(filled));
    if (count === null) return false;
    filled += count;
  }
  return true;
}

/** Writes an object as JSON text with line breaks. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeText(path, JSON.stringify(value, null, 2) + "\n");
}

/** Writes a text as UTF-8, whole or not at all. */
export async function writeText(path: string, text: string): Promise<void> {
  await replaceFile(path, { write: (file) => writeAll(file, new TextEncoder().encode(text)) });
}
