import { GpuDevice } from "../../gpu/device.ts";

/** The same device, on which kernels choose the launch shapes of a hardware GPU; so CI tests both kinds. */
export function asHardware({ handle, info, features }: GpuDevice): GpuDevice {
  return new GpuDevice(handle, { ...info, isSoftware: false }, features);
}
