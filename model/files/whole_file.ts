/** Files that are written whole or not at all. */
import { basename, dirname, join } from "@std/path";

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

/** Makes the folder that a file will lie in, where there is none: a folder that is there need not be writable by this. */
export async function makeFolderOf(path: string): Promise<void> {
  const folder = dirname(path);
  const info = await Deno.stat(folder).catch(() => null);
  if (!info?.isDirectory) await Deno.mkdir(folder, { recursive: true });
}

/** Makes a rename in the folder survive a power cut. Windows has no such call and needs none. */
export async function syncFolder(path: string): Promise<void> {
  if (Deno.build.os === "windows") return;
  using folder = await Deno.open(path);
  await folder.sync();
}

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

export async function writeText(path: string, text: string): Promise<void> {
  await replaceFile(path, { write: (file) => writeAll(file, new TextEncoder().encode(text)) });
}
