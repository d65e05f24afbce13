/**
 * What a disk may hold after power was cut, by the strictest reading of POSIX. What was synced is there. Of what was not,
 * each change of a name in a folder (a creation, a rename, a removal) has reached the disk or has not, whatever others
 * have; each write has reached it whole, in part, as zeros of its length, or not at all.
 */
import { join } from "@std/path";
import { type DiskOperation, type Inode, ROOT } from "./power_cut.ts";
import { createRandom, type Random } from "./random.ts";

/** How likely a change that was not synced has reached the disk: none, all, and anything between. */
const CHANCES = [0, 0.1, 0.5, 0.9, 1];

/** A disk after a cut. */
export interface DiskState {
  /** The last value that the program had marked, and the first that it had not; null where there is none. */
  readonly marked: number | null;
  readonly next: number | null;
  /** What happened until the cut, for messages. */
  readonly where: string;
  readonly folders: ReadonlyMap<Inode, ReadonlyMap<string, Inode>>;
  readonly files: ReadonlyMap<Inode, Uint8Array<ArrayBuffer>>;
}

/** A state that the disk may be in if power is cut before operation `cut`. */
export function diskAfterCut(
  operations: readonly DiskOperation[],
  { cut, random }: { cut: number; random: Random },
): DiskState {
  const done = operations.slice(0, cut);
  const synced = new Map<Inode, number>();
  done.forEach((operation, i) => {
    if (operation.kind === "sync") synced.set(operation.inode, i);
  });
  const chance = CHANCES[random.integer(CHANCES.length)]!;
  const has = (inode: Inode, place: number): boolean =>
    place < (synced.get(inode) ?? -1) || random.uniform() < chance;
  const folders = new Map<Inode, Map<string, Inode>>([[ROOT, new Map()]]);
  const files = new Map<Inode, Uint8Array<ArrayBuffer>>();
  const bytesOf = (inode: Inode): Uint8Array<ArrayBuffer> => files.get(inode) ?? new Uint8Array(0);
  done.forEach((operation, place) => {
    switch (operation.kind) {
      case "create":
        if (operation.isFolder) folders.set(operation.inode, new Map());
        if (has(operation.folder, place)) folders.get(operation.folder)!.set(operation.name, operation.inode);
        return;
      case "rename": {
        if (!has(operation.folder, place)) return;
        const names = folders.get(operation.folder)!;
        names.delete(operation.from);
        names.set(operation.to, operation.inode);
        return;
      }
      case "remove":
        if (has(operation.folder, place)) folders.get(operation.folder)!.delete(operation.name);
        return;
      case "truncate":
        if (has(operation.inode, place)) {
          files.set(operation.inode, resized(bytesOf(operation.inode), operation.size));
        }
        return;
      case "write": {
        const isSafe = place < (synced.get(operation.inode) ?? -1);
        const { offset, bytes } = isSafe ? operation : partOf(operation, { chance, random });
        if (bytes.length === 0) return;
        const before = bytesOf(operation.inode);
        const after = resized(before, Math.max(before.length, offset + bytes.length));
        after.set(bytes, offset);
        files.set(operation.inode, after);
      }
    }
  });
  const marks = (from: readonly DiskOperation[]): number[] =>
    from.flatMap((operation) => operation.kind === "mark" ? [operation.value] : []);
  const last = done.at(-1);
  return {
    marked: marks(done).at(-1) ?? null,
    next: marks(operations.slice(cut))[0] ?? null,
    where: `cut after operation ${cut} of ${operations.length}${last ? ` (${last.kind})` : ""}, ` +
      `unsynced changes kept with a chance of ${chance}`,
    folders,
    files,
  };
}

function resized(bytes: Uint8Array, size: number): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(size);
  copy.set(bytes.subarray(0, size));
  return copy;
}

/** What has reached the disk of a write that was not synced. */
function partOf(
  { offset, bytes }: { offset: number; bytes: Uint8Array },
  { chance, random }: { chance: number; random: Random },
): { offset: number; bytes: Uint8Array } {
  if (random.uniform() < chance) return { offset, bytes };
  switch (random.integer(3)) {
    case 0:
      return { offset, bytes: bytes.subarray(0, random.integer(bytes.length + 1)) };
    case 1:
      return { offset, bytes: new Uint8Array(bytes.length) };
    default:
      return { offset, bytes: new Uint8Array(0) };
  }
}

/** Writes a state's files into a folder that is emptied before. */
export function writeDisk({ folders, files }: DiskState, folder: string): void {
  for (const { name } of Deno.readDirSync(folder)) Deno.removeSync(join(folder, name), { recursive: true });
  function write(inode: Inode, path: string): void {
    for (const [name, child] of folders.get(inode)!) {
      const childPath = join(path, name);
      if (folders.has(child)) {
        Deno.mkdirSync(childPath);
        write(child, childPath);
      } else {
        Deno.writeFileSync(childPath, files.get(child) ?? new Uint8Array(0));
      }
    }
  }
  write(ROOT, folder);
}

/**
 * Checks states at random, spread over all moments.
 *
 * @param check Looks at the folder that a state was written into; throws for one that must not be.
 * @throws Error of the first such state, which says how to get there.
 */
export async function checkPowerCuts(
  operations: readonly DiskOperation[],
  { states, seed, folder, check }: {
    states: number;
    seed: number;
    folder: string;
    check: (state: DiskState) => Promise<void>;
  },
): Promise<void> {
  const random = createRandom(seed);
  for (let i = 0; i < states; i++) {
    const state = diskAfterCut(operations, { cut: 1 + i % operations.length, random });
    writeDisk(state, folder);
    try {
      await check(state);
    } catch (cause) {
      const problem = cause instanceof Error ? cause.message : String(cause);
      throw new Error(`state ${i} of seed ${seed}, ${state.where}: ${problem}`, { cause });
    }
  }
}
