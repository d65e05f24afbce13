import { GpuDevice } from "../../gpu/device.ts";

/** Bytes that a narrow device binds at once. */
const BINDING_BYTES = 8 * 1024 * 1024;

class NarrowDevice extends GpuDevice {
  override get limits(): GPUSupportedLimits {
    return new Proxy(this.handle.limits, {
      get: (limits, name) =>
        name === "maxStorageBufferBindingSize" ? BINDING_BYTES : Reflect.get(limits, name, limits),
    });
  }
}

/** The same device, which refuses to bind more than 8 MiB at once, so that a short tensor needs two bindings. */
export function asNarrow({ handle, info, features }: GpuDevice): GpuDevice {
  return new NarrowDevice(handle, info, features);
}
