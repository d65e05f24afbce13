/** One process at a time in a folder or on a file. The lock ends with the process, however that ends. */
import { dirname, resolve } from "@std/path";
import { makeFolder } from "../model/files/whole_file.ts";
import { RunFileError } from "./errors.ts";
import type { Terminal } from "./terminal.ts";

/** What a lock is for, in the words of its error: `Cannot VERB PATH: another run is DOING...`. */
export interface LockWords {
  /** "train in". */
  readonly verb: string;
  /** "at work there". */
  readonly doing: string;
}

/** Held until it is disposed. Where the file system has no locks a warning says so, and nothing is held. */
export class WorkLock implements Disposable {
  readonly #path: string;
  readonly #words: LockWords;
  readonly #terminal: Terminal;
  #file: Deno.FsFile | null = null;
  #isTried = false;
  /** Folders that were made to be locked, the innermost first. */
  readonly #made: string[] = [];

  constructor(path: string, { words, terminal }: { words: LockWords; terminal: Terminal }) {
    this.#path = resolve(path);
    this.#words = words;
    this.#terminal = terminal;
  }

  /**
   * Takes the lock if the file or folder is there.
   *
   * @throws RunFileError when another process has it.
   */
  async takeIfThere(): Promise<void> {
    const info = await infoOf(this.#path);
    // One that is gone meanwhile is not there either.
    if (info) await this.#take(info.isDirectory ? { read: true } : { read: true, write: true });
  }

  /**
   * Takes the lock of a folder, which is made if it is not there, and removed again if nothing was put into it.
   *
   * @returns False when it was taken before.
   * @throws RunFileError when another process has it.
   */
  async takeFolder(): Promise<boolean> {
    if (this.#isTried) return false;
    do {
      this.#made.length = 0;
      for (let path = this.#path; await infoOf(path) === null; path = dirname(path)) this.#made.push(path);
      await makeFolder(this.#path);
      // Whoever had locked it may have removed it since.
    } while (!await this.#take({ read: true }));
    return true;
  }

  /** The same for a file; one that was made stays, empty. */
  async takeFile(): Promise<boolean> {
    if (this.#isTried) return false;
    await this.#take({ read: true, write: true, create: true });
    return true;
  }

  /** False when there is nothing to lock. */
  async #take(options: Deno.OpenOptions): Promise<boolean> {
    const { file, reason } = await openLocked(this.#path, options);
    if (file === "gone") return false;
    this.#isTried = true;
    if (file === "taken") {
      const { verb, doing } = this.#words;
      throw new RunFileError(
        `Cannot ${verb} ${this.#path}: another run is ${doing}; wait for its end, or give another --out`,
      );
    }
    this.#file = file;
    if (file === null) {
      this.#terminal.note(
        `warning: ${this.#path} cannot be locked (${reason}); see to it that no other run is ${this.#words.doing}`,
      );
    }
    return true;
  }

  [Symbol.dispose](): void {
    // Before the lock is given back: whoever waits for it must see that the folder is gone.
    for (const folder of this.#made) {
      try {
        // Only an empty one can be removed so.
        Deno.removeSync(folder);
      } catch {
        break;
      }
    }
    this.#file?.close();
  }
}

/** What is at a path, or null. */
async function infoOf(path: string): Promise<Deno.FileInfo | null> {
  return await Deno.stat(path).catch((error) => {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return null;
    throw error;
  });
}

/**
 * The file, locked; "taken" when another process has the lock, "gone" when there is none (any more), null with a reason
 * where there are no locks.
 */
async function openLocked(
  path: string,
  options: Deno.OpenOptions,
): Promise<{ file: Deno.FsFile | "taken" | "gone" | null; reason: string }> {
  // A locked file cannot be replaced there, nor written to through another handle, and folders cannot be opened.
  if (Deno.build.os === "windows") return { file: null, reason: "this system locks otherwise" };
  for (;;) {
    const file = await Deno.open(path, options).catch((error) => {
      if (options.create || !(error instanceof Deno.errors.NotFound)) throw error;
      return null;
    });
    if (file === null) return { file: "gone", reason: "" };
    let isTaken;
    try {
      isTaken = !await file.tryLock(true);
    } catch (error) {
      file.close();
      return { file: null, reason: (error as Error).message };
    }
    const [{ ino: locked }, there] = [await file.stat(), await infoOf(path)];
    if (!isTaken && locked === there?.ino) return { file, reason: "" };
    file.close();
    if (isTaken) return { file: "taken", reason: "" };
    // Whoever had it has put another file in its place.
  }
}
