/** GPU time of every dispatch of a program, by timestamps. */
import { type Commands, encodeDispatch, type RecordedDispatch } from "./commands.ts";
import type { GpuDevice } from "./device.ts";
import { readTensor } from "./readback.ts";
import { createTensor, destroyTensor } from "./tensor.ts";

/** WebGPU allows 4096 queries in a set, two for each pass. */
const PASSES_PER_SET = 2048;

/** Time of one dispatch. */
export interface DispatchTime {
  /** `file entry_point`. */
  readonly label: string;
  readonly milliseconds: number;
}

/**
 * Runs programs with a compute pass and two timestamps for each dispatch. Clears and copies are left out: time only
 * programs whose results do not matter. On a software adapter a pass adds about 20 us.
 *
 * @throws TypeError when the adapter grants no timestamps.
 */
export async function timeDispatches(
  device: GpuDevice,
  programs: readonly Commands[],
): Promise<DispatchTime[]> {
  if (!device.features.has("timestamp-query")) {
    throw new TypeError(`${device.info.description} grants no timestamps; kernels cannot be timed`);
  }
  const dispatches = programs.flatMap(({ steps }) => steps).filter((step) => step.kind === "dispatch");
  const times: DispatchTime[] = [];
  for (let start = 0; start < dispatches.length; start += PASSES_PER_SET) {
    times.push(...await timeSet(device, dispatches.slice(start, start + PASSES_PER_SET)));
  }
  return times;
}

async function timeSet(device: GpuDevice, dispatches: readonly RecordedDispatch[]): Promise<DispatchTime[]> {
  const count = dispatches.length * 2;
  const querySet = device.handle.createQuerySet({ type: "timestamp", count });
  const resolved = device.createBuffer({
    size: count * 8,
    usage: GPUBufferUsage.QUERY_RESOLVE | GPUBufferUsage.COPY_SRC,
    label: "timestamps",
  });
  const ticks = createTensor(device, { shape: [count * 2], dtype: "u32", label: "timestamps" });
  device.guard("Cannot time dispatches", () => {
    const encoder = device.handle.createCommandEncoder();
    dispatches.forEach((dispatch, i) => {
      const pass = encoder.beginComputePass({
        timestampWrites: { querySet, beginningOfPassWriteIndex: i * 2, endOfPassWriteIndex: i * 2 + 1 },
      });
      encodeDispatch(pass, dispatch);
      pass.end();
    });
    encoder.resolveQuerySet(querySet, 0, count, resolved, 0);
    encoder.copyBufferToBuffer(resolved, 0, ticks.buffer, 0, count * 8);
    device.handle.queue.submit([encoder.finish()]);
  });
  const nanoseconds = new BigUint64Array((await readTensor(device, ticks)).buffer);
  querySet.destroy();
  device.destroyBuffer(resolved);
  destroyTensor(device, ticks);
  return dispatches.map(({ label }, i) => ({
    label,
    milliseconds: Number(nanoseconds[i * 2 + 1]! - nanoseconds[i * 2]!) / 1e6,
  }));
}
