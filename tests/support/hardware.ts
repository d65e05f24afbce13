import { GpuDevice } from "../../gpu/device.ts";
import type { Tuning } from "../../gpu/tuning/tuning.ts";

/** The same device, on which kernels choose the launch shapes of a hardware GPU; so CI tests both kinds. */
export function asHardware({ handle, info, features }: GpuDevice): GpuDevice {
  return new GpuDevice(handle, { ...info, isSoftware: false }, features);
}

/** The same device with some choices made. */
export function tuned({ handle, info, features, tuning }: GpuDevice, choices: Partial<Tuning>): GpuDevice {
  const device = new GpuDevice(handle, info, features);
  device.tuning = { ...tuning, ...choices };
  return device;
}
