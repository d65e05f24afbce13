/**
 * What an adapter reaches at best with this program's own kernels: the ceilings that a profile compares kernels with.
 */
import { Commands, submit } from "./commands.ts";
import type { Work } from "./cost.ts";
import type { GpuDevice } from "./device.ts";
import { matmul } from "./kernels/matmul.ts";
import { BufferScope } from "./memory.ts";
import { readTensors } from "./readback.ts";
import { staticRows } from "./rows.ts";
import { createTensor, ELEMENT_BYTES } from "./tensor.ts";
import { timeWork } from "./timing.ts";

export interface Ceilings {
  /** Of the fastest f32 matrix product. */
  readonly flopsPerSecond: number;
  /** Of memory: bytes read and written by copying an array that is larger than caches. */
  readonly bytesPerSecond: number;
}

/**
 * The part of the ceilings that some work reached (the roofline of Williams et al. 2009): the time that the slower of its
 * arithmetic and its memory traffic takes at the ceiling, of the time that it took. Caches may lift it above 1.
 */
export function partOfCeiling(
  { flops, bytes }: Work,
  { milliseconds, ceilings }: { milliseconds: number; ceilings: Ceilings },
): number {
  const seconds = Math.max(flops / ceilings.flopsPerSecond, bytes / ceilings.bytesPerSecond);
  return seconds / (milliseconds / 1000);
}

/** Sides of the products, each tried unless the one before took long. */
const SIDES = [512, 1024, 2048, 4096] as const;

/** Milliseconds of a product that is long enough: launching it counts for nothing, and a larger one gains little. */
const LONG_MILLISECONDS = 20;

const REPEATS = 5;

/** Floats of the array that is copied: 128 MiB. */
const COPY_LENGTH = 2 ** 25;

/** Copies that are timed together. */
const COPIES = 4;

/**
 * Measures the ceilings, in about a second; takes 256 MiB meanwhile.
 *
 * @throws TypeError when the adapter grants no timestamps, MemoryError when there is no room.
 */
export async function measureCeilings(device: GpuDevice): Promise<Ceilings> {
  return { flopsPerSecond: await bestProduct(device), bytesPerSecond: await copyBandwidth(device) };
}

async function bestProduct(device: GpuDevice): Promise<number> {
  let best = 0;
  for (const side of SIDES) {
    const scope = new BufferScope(device);
    const commands = new Commands(device, "product");
    const tensor = (label: string) => createTensor(scope, { shape: [side, side], label });
    const counted = { dimension: "rows", rows: staticRows(scope, side) } as const;
    const sizes = { rows: side, columns: side, depth: side, counted };
    matmul(commands, { a: tensor("a"), b: tensor("b"), out: tensor("product") }, sizes);
    const milliseconds = await fastest(device, commands);
    commands.destroy();
    scope.destroy();
    best = Math.max(best, (2 * side ** 3) / (milliseconds / 1000));
    if (milliseconds > LONG_MILLISECONDS) break;
  }
  return best;
}

async function copyBandwidth(device: GpuDevice): Promise<number> {
  const scope = new BufferScope(device);
  const [from, to] = ["copied", "copy"].map((label) => createTensor(scope, { shape: [COPY_LENGTH], label }));
  const end = createTensor(scope, { shape: [1], label: "end of the copies" });
  const commands = new Commands(device, "copies");
  for (let i = 0; i < COPIES; i++) commands.copy(from!, to!);
  let best = Infinity;
  // Copies have no timestamps: the read after them takes little beside them. The first run touches the memory.
  for (let repeat = 0; repeat <= REPEATS; repeat++) {
    const start = performance.now();
    await readTensors(device, [end], { after: [commands] });
    if (repeat > 0) best = Math.min(best, performance.now() - start);
  }
  commands.destroy();
  scope.destroy();
  return (2 * COPIES * COPY_LENGTH * ELEMENT_BYTES) / (best / 1000);
}

/** Milliseconds of the fastest of some runs; the first, which compiles, does not count. */
async function fastest(device: GpuDevice, commands: Commands): Promise<number> {
  let best = Infinity;
  for (let repeat = 0; repeat <= REPEATS; repeat++) {
    const { times } = await timeWork(device, () => Promise.resolve(submit(device, [commands])));
    if (repeat > 0) best = Math.min(best, times.reduce((sum, { milliseconds }) => sum + milliseconds, 0));
  }
  return best;
}
