import { type GpuDevice, openDevice } from "../../gpu/device.ts";

/** A device of its own that is lost right after the submit of that number, from 1, while its work is under way. */
export async function deviceLostAfter(submits: number): Promise<GpuDevice> {
  const device = await openDevice();
  const { queue } = device.handle;
  const submit = queue.submit.bind(queue);
  let left = submits;
  queue.submit = (commands): undefined => {
    submit(commands);
    if (--left === 0) device.handle.destroy();
  };
  return device;
}
