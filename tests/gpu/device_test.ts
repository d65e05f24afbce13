import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { gpuTest, upload } from "../support/device.ts";
import { Commands, submit } from "../../gpu/commands.ts";
import { openDevice } from "../../gpu/device.ts";
import { GpuError, MemoryError } from "../../gpu/errors.ts";
import { defineKernel } from "../../gpu/kernel.ts";
import { formatBytes } from "../../gpu/memory.ts";
import { readTensor } from "../../gpu/readback.ts";
import { createTensor, destroyTensor } from "../../gpu/tensor.ts";

gpuTest("openDevice raises the limits to the adapter's and says what the adapter is", (device) => {
  assertEquals(device.limits.maxStorageBuffersPerShaderStage >= 8, true);
  assertEquals(device.limits.maxComputeInvocationsPerWorkgroup >= 256, true);
  assertEquals(device.info.description.length > 0, true);
  return Promise.resolve();
});

Deno.test("createBuffer counts live and peak bytes", async () => {
  using device = await openDevice();
  const first = createTensor(device, { shape: [256], label: "first" });
  const second = createTensor(device, { shape: [3], label: "second" });
  assertEquals(device.memory.live, 1024 + 16);
  destroyTensor(device, first);
  assertEquals([device.memory.live, device.memory.peak], [16, 1040]);
  destroyTensor(device, second);
  assertEquals(device.memory.live, 0);
});

Deno.test("createBuffer refuses what exceeds the budget and counts nothing then", async () => {
  using device = await openDevice();
  device.memory.budget = 1000;
  createTensor(device, { shape: [200], label: "weights" });
  const message = "Cannot allocate moments: 800 B on top of 800 B in use exceeds the 1000 B available; lower";
  assertThrows(() => createTensor(device, { shape: [200], label: "moments" }), MemoryError, message);
  assertEquals([device.memory.live, device.memory.peak], [800, 800]);
  createTensor(device, { shape: [48], label: "fits" });
  await device.settle();
});

gpuTest("createBuffer refuses what is larger than the adapter's largest buffer", (device) => {
  const before = device.memory.live;
  const shape = [Math.floor(device.limits.maxBufferSize / 4) + 4];
  assertThrows(
    () => createTensor(device, { shape, label: "logits" }),
    MemoryError,
    "more than the adapter's largest buffer",
  );
  assertEquals(device.memory.live, before);
  return Promise.resolve();
});

Deno.test("settle throws a validation error of an earlier call, and keeps throwing it", async () => {
  using device = await openDevice();
  device.guard("Cannot copy", () => {
    const encoder = device.handle.createCommandEncoder();
    const { buffer } = createTensor(device, { shape: [4], label: "small" });
    encoder.copyBufferToBuffer(buffer, 0, buffer, 0, 1024);
    device.handle.queue.submit([encoder.finish()]);
  });
  for (let call = 0; call < 2; call++) {
    const error = await assertRejects(() => device.settle(), GpuError, "Cannot copy: ");
    assertEquals(error.kind, "validation");
  }
});

Deno.test("settle throws errors of calls that nobody guarded", async () => {
  using device = await openDevice();
  device.handle.createBuffer({ size: 16, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.STORAGE });
  // The event comes with a later turn of the event loop.
  await new Promise((resolve) => setTimeout(resolve, 50));
  const error = await assertRejects(() => device.settle(), GpuError);
  assertEquals(error.kind, "validation");
});

Deno.test("a dispatch that does not bind all its tensors fails by name at the next awaited call", async () => {
  using device = await openDevice();
  const code = `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(1) fn forward() { out[0] = x[0]; }`;
  const out = upload(device, [1]);
  const commands = new Commands(device, "program");
  const dispatch = { entryPoint: "forward", tensors: { out }, grid: [1, 1, 1] } as const;
  commands.dispatch(defineKernel("copy_first.wgsl", code), dispatch);
  submit(device, [commands]);
  const error = await assertRejects(
    () => readTensor(device, out),
    GpuError,
    "Cannot bind copy_first forward: ",
  );
  assertEquals(error.kind, "validation");
});

Deno.test("settle throws when the device was lost, but not after close", async () => {
  const lost = await openDevice();
  lost.handle.destroy();
  await lost.handle.lost;
  const error = await assertRejects(() => lost.settle(), GpuError, "The GPU device was lost");
  assertEquals(error.kind, "lost");
  const closed = await openDevice();
  closed.close();
  await closed.handle.lost;
  await closed.settle();
});

Deno.test("formatBytes uses binary units", () => {
  assertEquals([0, 1023, 1024, 12.3 * 2 ** 20, 2 ** 40].map(formatBytes), [
    "0 B",
    "1023 B",
    "1.00 KiB",
    "12.3 MiB",
    "1.00 TiB",
  ]);
});
