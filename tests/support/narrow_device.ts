import { describeAdapter, requestAdapter } from "../../gpu/adapter.ts";
import { GpuDevice } from "../../gpu/device.ts";

/** Opens a device that binds little at once, whatever the adapter could, so that a short tensor needs two bindings. */
export async function openNarrowDevice(): Promise<GpuDevice> {
  const adapter = await requestAdapter();
  const handle = await adapter.requestDevice({
    requiredLimits: { maxStorageBufferBindingSize: 8 * 1024 * 1024 },
  });
  return new GpuDevice(handle, describeAdapter(adapter), new Set());
}
