/** GPU time and work of every dispatch, by timestamps. */
import { observeDispatches, type RecordedDispatch } from "./commands.ts";
import { type RowsFound, type Work, workOf } from "./cost.ts";
import type { GpuDevice } from "./device.ts";
import { readTensors } from "./readback.ts";
import {
  createTensor,
  destroyTensor,
  ELEMENT_BYTES,
  elementCount,
  type Tensor,
  viewTensor,
} from "./tensor.ts";

/** WebGPU allows 4096 queries in a set, two for each pass. */
const PASSES_PER_SET = 2048;

/** Numbers of one buffer that row counts and records are copied to. */
const LOG_LENGTH = 2 ** 18;

/** One dispatch as it ran. */
export interface DispatchTime {
  /** `file entry_point`. */
  readonly label: string;
  /** The part of the work that it belongs to: see `Commands.mark`. */
  readonly part: string;
  /** From the first dispatch's start. */
  readonly startMilliseconds: number;
  readonly milliseconds: number;
  /** Null where the kernel does not say. */
  readonly work: Work | null;
  /** Rows that it found; null where it has none, or does not say. */
  readonly rows: number | null;
}

/** Passes with timestamps: pass i has the queries 2i and 2i + 1. */
interface TimedPasses {
  readonly querySet: GPUQuerySet;
  readonly dispatches: ObservedDispatch[];
}

/** A dispatch and where the rows that it found were copied to. */
interface ObservedDispatch {
  readonly dispatch: RecordedDispatch;
  readonly count: LogPlace | null;
  readonly records: LogPlace | null;
}

/**
 * Does work and times every dispatch that is submitted to the device until it is done. Nothing but the speed changes:
 * each dispatch gets a compute pass of its own, which takes from a GPU the chance to overlap kernels. What an empty pass
 * takes (28 us on lavapipe, as much as a small kernel) is measured and taken off. Clears, copies and the host's work are
 * not timed.
 *
 * @throws TypeError when the adapter grants no timestamps.
 */
export async function timeWork<T>(
  device: GpuDevice,
  work: () => Promise<T>,
): Promise<{ result: T; times: DispatchTime[] }> {
  if (!device.features.has("timestamp-query")) {
    throw new TypeError(`${device.info.description} grants no timestamps; kernels cannot be timed`);
  }
  const passMilliseconds = await emptyPass(device);
  const sets: TimedPasses[] = [];
  const log = new Log(device);
  observeDispatches(device, (dispatch, encoder) => {
    let set = sets.at(-1);
    if (!set || set.dispatches.length === PASSES_PER_SET) {
      const querySet = device.handle.createQuerySet({ type: "timestamp", count: PASSES_PER_SET * 2 });
      sets.push(set = { querySet, dispatches: [] });
    }
    // Rows change from step to step: what a dispatch finds is copied as it runs.
    const { rows, attention } = dispatch.cost ?? {};
    const count = rows ? log.copy(encoder, rows.count) : null;
    const records = attention ? log.copy(encoder, attention.packing.records) : null;
    const query = (set.dispatches.push({ dispatch, count, records }) - 1) * 2;
    return { querySet: set.querySet, beginningOfPassWriteIndex: query, endOfPassWriteIndex: query + 1 };
  });
  try {
    const result = await work();
    observeDispatches(device, null);
    return { result, times: await readTimes(device, { sets, log, passMilliseconds }) };
  } finally {
    observeDispatches(device, null);
    for (const { querySet } of sets) querySet.destroy();
    log.destroy();
  }
}

/** What compute passes without a dispatch take, by device; milliseconds. */
const emptyPasses = new WeakMap<GpuDevice, number>();

/** Passes whose median that is. */
const EMPTY_PASSES = 101;

async function emptyPass(device: GpuDevice): Promise<number> {
  const known = emptyPasses.get(device);
  if (known !== undefined) return known;
  const querySet = device.handle.createQuerySet({ type: "timestamp", count: EMPTY_PASSES * 2 });
  device.guard("Cannot time empty passes", () => {
    const encoder = device.handle.createCommandEncoder();
    for (let i = 0; i < EMPTY_PASSES * 2; i += 2) {
      const timestampWrites = { querySet, beginningOfPassWriteIndex: i, endOfPassWriteIndex: i + 1 };
      encoder.beginComputePass({ timestampWrites }).end();
    }
    device.handle.queue.submit([encoder.finish()]);
  });
  const [ticks] = await readTicks(device, [{ querySet, count: EMPTY_PASSES }]);
  querySet.destroy();
  const times = Array.from({ length: EMPTY_PASSES }, (_, i) => millisecondsBetween(ticks!, i));
  const milliseconds = times.toSorted((a, b) => a - b)[EMPTY_PASSES >> 1]!;
  emptyPasses.set(device, milliseconds);
  return milliseconds;
}

/** Nanoseconds at the beginning and the end of each pass. */
async function readTicks(
  device: GpuDevice,
  sets: readonly { readonly querySet: GPUQuerySet; readonly count: number }[],
): Promise<BigUint64Array[]> {
  const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
  const resolved = sets.map(({ count }) =>
    device.createBuffer({ size: count * 16, usage, label: "timestamps" })
  );
  const ticks = sets.map(({ count }) =>
    createTensor(device, { shape: [count * 4], dtype: "u32", label: "timestamps" })
  );
  device.guard("Cannot read timestamps", () => {
    const encoder = device.handle.createCommandEncoder();
    sets.forEach(({ querySet, count }, i) => {
      encoder.resolveQuerySet(querySet, 0, count * 2, resolved[i]!, 0);
      encoder.copyBufferToBuffer(resolved[i]!, 0, ticks[i]!.buffer, 0, count * 16);
    });
    device.handle.queue.submit([encoder.finish()]);
  });
  const data = await readTensors(device, ticks);
  for (const buffer of resolved) device.destroyBuffer(buffer);
  for (const tensor of ticks) destroyTensor(device, tensor);
  return data.map(({ buffer }) => new BigUint64Array(buffer));
}

function millisecondsBetween(ticks: BigUint64Array, pass: number): number {
  return Number(ticks[pass * 2 + 1]! - ticks[pass * 2]!) / 1e6;
}

async function readTimes(
  device: GpuDevice,
  { sets, log, passMilliseconds }: { sets: readonly TimedPasses[]; log: Log; passMilliseconds: number },
): Promise<DispatchTime[]> {
  const ticks = await readTicks(
    device,
    sets.map(({ querySet, dispatches }) => ({ querySet, count: dispatches.length })),
  );
  await log.read();
  const first = ticks[0]?.[0] ?? 0n;
  return sets.flatMap(({ dispatches }, set) =>
    dispatches.map(({ dispatch: { label, part, cost }, ...places }, i): DispatchTime => {
      const found = foundRows(log, places);
      return {
        label,
        part,
        startMilliseconds: Number(ticks[set]![i * 2]! - first) / 1e6,
        milliseconds: Math.max(0, millisecondsBetween(ticks[set]!, i) - passMilliseconds),
        work: cost && workOf(cost, found),
        rows: cost?.rows ? found.count : null,
      };
    })
  );
}

function foundRows(log: Log, { count, records }: Omit<ObservedDispatch, "dispatch">): RowsFound {
  return { count: count ? log.at(count)[0]! : 0, records: records && log.at(records) };
}

/** A place in the log. */
interface LogPlace {
  readonly buffer: number;
  readonly start: number;
  readonly length: number;
}

/** Copies of u32 tensors as they are at moments of a program. */
class Log {
  readonly #device: GpuDevice;
  readonly #tensors: Tensor[] = [];
  #used = 0;
  #data: readonly Uint32Array[] = [];

  constructor(device: GpuDevice) {
    this.#device = device;
  }

  copy(encoder: GPUCommandEncoder, tensor: Tensor): LogPlace {
    const length = elementCount(tensor.shape);
    let to = this.#tensors.at(-1);
    if (!to || this.#used + length > elementCount(to.shape)) {
      const shape = [Math.max(LOG_LENGTH, length)];
      this.#tensors.push(to = createTensor(this.#device, { shape, dtype: "u32", label: "log of rows" }));
      this.#used = 0;
    }
    const place = { buffer: this.#tensors.length - 1, start: this.#used, length };
    encoder.copyBufferToBuffer(
      tensor.buffer,
      tensor.offset,
      to.buffer,
      place.start * ELEMENT_BYTES,
      length * ELEMENT_BYTES,
    );
    this.#used += length;
    return place;
  }

  /** Reads what has been copied, for `at`. */
  async read(): Promise<void> {
    const last = this.#tensors.length - 1;
    const used = this.#tensors.map((tensor, i) =>
      i < last ? tensor : viewTensor(tensor, { shape: [this.#used] })
    );
    this.#data = await readTensors(this.#device, used) as Uint32Array[];
  }

  at({ buffer, start, length }: LogPlace): Uint32Array {
    return this.#data[buffer]!.subarray(start, start + length);
  }

  destroy(): void {
    for (const tensor of this.#tensors) destroyTensor(this.#device, tensor);
    this.#tensors.length = 0;
  }
}
