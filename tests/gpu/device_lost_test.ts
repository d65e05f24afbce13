/** A device that is lost: whatever was asked of it ends with one typed error, and nothing waits for it. */
import { assertEquals, assertRejects } from "@std/assert";
import { type GpuDevice, openDevice } from "../../gpu/device.ts";
import { GpuError } from "../../gpu/errors.ts";
import { readTensor } from "../../gpu/readback.ts";
import { createTensor, type Tensor } from "../../gpu/tensor.ts";

function tensorOn(device: GpuDevice): Tensor {
  return createTensor(device, { shape: [1000], label: "x" });
}

async function assertLost(read: () => Promise<unknown>): Promise<void> {
  const { kind } = await assertRejects(read, GpuError, "The GPU device was lost");
  assertEquals(kind, "lost");
}

Deno.test("a device that is lost before its first read says so", async () => {
  using device = await openDevice();
  const tensor = tensorOn(device);
  device.handle.destroy();
  for (let i = 0; i < 2; i++) await assertLost(() => readTensor(device, tensor));
});

Deno.test("a device that is lost between reads says so, for new tensors too", async () => {
  using device = await openDevice();
  const tensor = tensorOn(device);
  await readTensor(device, tensor);
  device.handle.destroy();
  for (let i = 0; i < 2; i++) await assertLost(() => readTensor(device, tensor));
  await assertLost(() => readTensor(device, tensorOn(device)));
  await assertLost(() => device.settle());
});

Deno.test("a device that is lost during reads ends them all", async () => {
  using device = await openDevice();
  const tensor = tensorOn(device);
  await readTensor(device, tensor);
  const reads = [1, 2, 3].map(() => readTensor(device, tensor));
  device.handle.destroy();
  for (const read of reads) await assertLost(() => read);
});
