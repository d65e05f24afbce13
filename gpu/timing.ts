/** GPU time of every dispatch, by timestamps. */
import { setTimestamps } from "./commands.ts";
import type { GpuDevice } from "./device.ts";
import { readTensors } from "./readback.ts";
import { createTensor, destroyTensor, type TensorData } from "./tensor.ts";

/** WebGPU allows 4096 queries in a set, two for each pass. */
const PASSES_PER_SET = 2048;

/** Time of one dispatch. */
export interface DispatchTime {
  /** `file entry_point`. */
  readonly label: string;
  readonly milliseconds: number;
}

/** Passes with timestamps: pass i has the queries 2i and 2i + 1. */
interface TimedPasses {
  readonly querySet: GPUQuerySet;
  readonly labels: string[];
}

/**
 * Does work and times every dispatch that is submitted to the device until it is done. Nothing but the speed changes:
 * each dispatch gets a compute pass of its own, which adds about 20 us on a software adapter and takes from a GPU the
 * chance to overlap kernels. Clears, copies and the host's work are not timed.
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
  const sets: TimedPasses[] = [];
  setTimestamps(device, (label) => {
    let set = sets.at(-1);
    if (!set || set.labels.length === PASSES_PER_SET) {
      const querySet = device.handle.createQuerySet({ type: "timestamp", count: PASSES_PER_SET * 2 });
      sets.push(set = { querySet, labels: [] });
    }
    const query = (set.labels.push(label) - 1) * 2;
    return { querySet: set.querySet, beginningOfPassWriteIndex: query, endOfPassWriteIndex: query + 1 };
  });
  try {
    const result = await work();
    return { result, times: await readTimes(device, sets) };
  } finally {
    setTimestamps(device, null);
    for (const { querySet } of sets) querySet.destroy();
  }
}

async function readTimes(device: GpuDevice, sets: readonly TimedPasses[]): Promise<DispatchTime[]> {
  const usage = GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC;
  const resolved = sets.map(({ labels }) =>
    device.createBuffer({ size: labels.length * 16, usage, label: "timestamps" })
  );
  const ticks = sets.map(({ labels }) =>
    createTensor(device, { shape: [labels.length * 4], dtype: "u32", label: "timestamps" })
  );
  device.guard("Cannot read timestamps", () => {
    const encoder = device.handle.createCommandEncoder();
    sets.forEach(({ querySet, labels }, i) => {
      encoder.resolveQuerySet(querySet, 0, labels.length * 2, resolved[i]!, 0);
      encoder.copyBufferToBuffer(resolved[i]!, 0, ticks[i]!.buffer, 0, labels.length * 16);
    });
    device.handle.queue.submit([encoder.finish()]);
  });
  const data = await readTensors(device, ticks);
  for (const buffer of resolved) device.destroyBuffer(buffer);
  for (const tensor of ticks) destroyTensor(device, tensor);
  return sets.flatMap(({ labels }, i) => timesOf(labels, data[i]!));
}

function timesOf(labels: readonly string[], { buffer }: TensorData): DispatchTime[] {
  const nanoseconds = new BigUint64Array(buffer);
  return labels.map((label, i) => ({
    label,
    milliseconds: Number(nanoseconds[i * 2 + 1]! - nanoseconds[i * 2]!) / 1e6,
  }));
}
