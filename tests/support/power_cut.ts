/**
 * What a program asks of a disk, written down while it runs: every file operation in a folder, in order. From that,
 * power_cut_disk.ts tells what the disk may hold if power is cut in between.
 *
 * The functions of `Deno` that change files are replaced for a while. Any that is not modelled here throws, so that new
 * code cannot slip past the model.
 */
import { stub } from "@std/testing/mock";
import { basename, dirname, resolve } from "@std/path";

/** A file or folder, whatever its names are. */
export type Inode = number;

/** One operation, with what it means for the disk. */
export type DiskOperation =
  | {
    readonly kind: "create";
    readonly folder: Inode;
    readonly name: string;
    readonly inode: Inode;
    readonly isFolder: boolean;
  }
  | { readonly kind: "write"; readonly inode: Inode; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly inode: Inode; readonly size: number }
  | { readonly kind: "sync"; readonly inode: Inode }
  | {
    readonly kind: "rename";
    readonly folder: Inode;
    readonly from: string;
    readonly to: string;
    readonly inode: Inode;
  }
  | { readonly kind: "remove"; readonly folder: Inode; readonly name: string }
  /** Not the disk's: the program has been told that something is done. */
  | { readonly kind: "mark"; readonly value: number };

/** The folder itself, which was there and safe before. */
export const ROOT: Inode = 0;

/** Called before each operation with its number, from 0, and its name; what it throws, the program gets. */
export type OperationHook = (number: number, name: string) => void;

const CHANGING = ["open", "rename", "remove", "mkdir"] as const;
const UNMODELLED = [
  "create",
  "copyFile",
  "link",
  "symlink",
  "truncate",
  "writeFile",
  "writeTextFile",
  "openSync",
  "renameSync",
  "removeSync",
  "mkdirSync",
  "createSync",
  "copyFileSync",
  "linkSync",
  "symlinkSync",
  "truncateSync",
  "writeFileSync",
  "writeTextFileSync",
] as const;
const FILE_METHODS = ["write", "writeSync", "sync", "truncate", "seek"] as const;

type Method = (...args: unknown[]) => unknown;

/** Writes down what happens below a folder until it is disposed. */
export class DiskRecorder implements Disposable {
  readonly operations: DiskOperation[] = [];
  readonly #root: string;
  readonly #hook: OperationHook;
  readonly #folders = new Map<Inode, Map<string, Inode>>([[ROOT, new Map()]]);
  readonly #sizes = new Map<Inode, number>();
  readonly #open = new WeakMap<Deno.FsFile, { inode: Inode; place: number; isAppending: boolean }>();
  readonly #stubs: Disposable[] = [];
  #next: Inode = ROOT + 1;
  #calls = 0;

  /** @param root An empty folder. */
  constructor(root: string, { hook = () => {} }: { hook?: OperationHook } = {}) {
    this.#root = resolve(root);
    this.#hook = hook;
    const { open, rename, remove, mkdir } = Deno;
    const changing = {
      open: async (path: string, options: Deno.OpenOptions = { read: true }): Promise<Deno.FsFile> => {
        if (!this.#holds(path)) return await open(path, options);
        this.#call(options.write || options.append ? "open" : "open to read");
        const file = await open(path, options);
        this.#opened(file, path, options);
        return file;
      },
      rename: async (from: string, to: string): Promise<void> => {
        if (!this.#holds(from)) return await rename(from, to);
        this.#call("rename");
        if (dirname(from) !== dirname(to)) throw new Error("Renames between folders are not modelled");
        await rename(from, to);
        const [{ folder, name }, { name: target }] = [this.#place(from), this.#place(to)];
        const names = this.#folders.get(folder)!;
        const inode = names.get(name)!;
        names.delete(name);
        names.set(target, inode);
        this.operations.push({ kind: "rename", folder, from: name, to: target, inode });
      },
      remove: async (path: string, options: Deno.RemoveOptions = {}): Promise<void> => {
        if (!this.#holds(path)) return await remove(path, options);
        this.#call("remove");
        await remove(path, options);
        this.#removed(path);
      },
      mkdir: async (path: string, options: Deno.MkdirOptions = {}): Promise<void> => {
        if (!this.#holds(path)) return await mkdir(path, options);
        this.#call("mkdir");
        await mkdir(path, options);
        this.#made(path);
      },
    } satisfies Record<typeof CHANGING[number], unknown>;
    for (const name of CHANGING) this.#replace(Deno, name, changing[name] as Method);
    for (const name of UNMODELLED) {
      const original = Deno[name] as (...args: unknown[]) => unknown;
      this.#replace(Deno, name, (...args: unknown[]): unknown => {
        if (args.some((arg) => typeof arg === "string" && this.#holds(arg))) {
          throw new Error(`Deno.${name} is not modelled`);
        }
        return original(...args);
      });
    }
    this.#replaceFileMethods();
  }

  /** Notes that the program has been told so much. */
  mark(value: number): void {
    this.operations.push({ kind: "mark", value });
  }

  [Symbol.dispose](): void {
    for (const replaced of this.#stubs) replaced[Symbol.dispose]();
  }

  #replace(owner: object, name: string, method: Method): void {
    const methods = owner as Record<string, Method>;
    this.#stubs.push(stub(methods, name, method));
  }

  #call(name: string): void {
    this.#hook(this.#calls++, name);
  }

  #holds(path: string | URL): boolean {
    return typeof path === "string" && `${resolve(path)}/`.startsWith(`${this.#root}/`);
  }

  /** The folder of a path and its name there. */
  #place(path: string): { folder: Inode; name: string } {
    const folder = this.#inodeOf(dirname(resolve(path)));
    if (folder === undefined) throw new Error(`The model does not know the folder of ${path}`);
    return { folder, name: basename(path) };
  }

  #inodeOf(path: string): Inode | undefined {
    const parts = path.slice(this.#root.length).split("/").filter((part) => part !== "");
    return parts.reduce<Inode | undefined>(
      (inode, part) => inode === undefined ? undefined : this.#folders.get(inode)?.get(part),
      ROOT,
    );
  }

  #create(path: string, { isFolder }: { isFolder: boolean }): Inode {
    const { folder, name } = this.#place(path);
    const inode = this.#next++;
    this.#folders.get(folder)!.set(name, inode);
    if (isFolder) this.#folders.set(inode, new Map());
    this.#sizes.set(inode, 0);
    this.operations.push({ kind: "create", folder, name, inode, isFolder });
    return inode;
  }

  #made(path: string): void {
    const full = resolve(path);
    if (this.#inodeOf(full) !== undefined) return;
    if (this.#inodeOf(dirname(full)) === undefined) this.#made(dirname(full));
    this.#create(full, { isFolder: true });
  }

  #removed(path: string): void {
    const full = resolve(path);
    for (const name of this.#folders.get(this.#inodeOf(full)!)?.keys() ?? []) {
      this.#removed(`${full}/${name}`);
    }
    const { folder, name } = this.#place(full);
    this.#folders.get(folder)!.delete(name);
    this.operations.push({ kind: "remove", folder, name });
  }

  #opened(
    file: Deno.FsFile,
    path: string,
    { create = false, truncate = false, append = false }: Deno.OpenOptions,
  ): void {
    let inode = this.#inodeOf(resolve(path));
    if (inode === undefined) {
      if (!create) throw new Error(`The model does not know ${path}`);
      inode = this.#create(path, { isFolder: false });
    }
    this.#open.set(file, { inode, place: 0, isAppending: append });
    if (truncate) this.#truncated(inode, 0);
  }

  #truncated(inode: Inode, size: number): void {
    if (this.#sizes.get(inode) === size) return;
    this.#sizes.set(inode, size);
    this.operations.push({ kind: "truncate", inode, size });
  }

  #wrote(file: Deno.FsFile, bytes: Uint8Array): void {
    const state = this.#open.get(file)!;
    const size = this.#sizes.get(state.inode)!;
    const offset = state.isAppending ? size : state.place;
    state.place = offset + bytes.length;
    this.#sizes.set(state.inode, Math.max(size, state.place));
    this.operations.push({ kind: "write", inode: state.inode, offset, bytes: bytes.slice() });
  }

  #replaceFileMethods(): void {
    const prototype = Deno.FsFile.prototype;
    // deno-lint-ignore no-this-alias -- the methods below have a file as theirs
    const recorder = this;
    const { write, writeSync, sync, truncate, seek } = prototype;
    const methods = {
      async write(this: Deno.FsFile, bytes: Uint8Array): Promise<number> {
        if (!recorder.#open.has(this)) return await write.call(this, bytes);
        recorder.#call("write");
        const count = await write.call(this, bytes);
        recorder.#wrote(this, bytes.subarray(0, count));
        return count;
      },
      writeSync(this: Deno.FsFile, bytes: Uint8Array): number {
        if (!recorder.#open.has(this)) return writeSync.call(this, bytes);
        recorder.#call("write");
        const count = writeSync.call(this, bytes);
        recorder.#wrote(this, bytes.subarray(0, count));
        return count;
      },
      async sync(this: Deno.FsFile): Promise<void> {
        const state = recorder.#open.get(this);
        if (!state) return await sync.call(this);
        // The model of the disk needs no real one to be slow.
        recorder.#call("sync");
        recorder.operations.push({ kind: "sync", inode: state.inode });
      },
      async truncate(this: Deno.FsFile, size = 0): Promise<void> {
        const state = recorder.#open.get(this);
        if (state) recorder.#call("truncate");
        await truncate.call(this, size);
        if (state) recorder.#truncated(state.inode, size);
      },
      async seek(this: Deno.FsFile, offset: number, whence: Deno.SeekMode): Promise<number> {
        const place = await seek.call(this, offset, whence);
        const state = recorder.#open.get(this);
        if (state) state.place = place;
        return place;
      },
    } satisfies Record<typeof FILE_METHODS[number], unknown>;
    for (const name of FILE_METHODS) this.#replace(prototype, name, methods[name] as Method);
  }
}
