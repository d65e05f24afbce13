import { GpuDevice } from "../../gpu/device.ts";

/** The same device, which binds so few bytes at once, 8 MiB unless told, that a short tensor needs two bindings. */
export function asNarrow({ handle, info, features }: GpuDevice, bindingBytes = 8 * 1024 * 1024): GpuDevice {
  class NarrowDevice extends GpuDevice {
    override get limits(): GPUSupportedLimits {
      return new Proxy(this.handle.limits, {
        get: (limits, name) =>
          name === "maxStorageBufferBindingSize" ? bindingBytes : Reflect.get(limits, name, limits),
      });
    }
  }
  return new NarrowDevice(handle, info, features);
}
