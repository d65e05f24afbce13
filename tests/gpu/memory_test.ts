import { assertEquals, assertThrows } from "@std/assert";
import { MemoryError } from "../../gpu/errors.ts";
import { type Allocator, BufferScope, formatBytes, MemoryLedger, planAllocator } from "../../gpu/memory.ts";
import { createTensor, destroyTensor, tensorFrom } from "../../gpu/tensor.ts";
import { gpuTest } from "../support/device.ts";

function tensorOf(device: Allocator, size: number): ReturnType<typeof createTensor> {
  return createTensor(device, { shape: [size], label: "tensor" });
}

Deno.test("formatBytes takes the largest unit that leaves at least one", () => {
  const texts = [
    0,
    1023,
    1024,
    1536,
    10 * 1024,
    12.34 * 1024 ** 2,
    1024 ** 3,
    5 * 1024 ** 4,
    5000 * 1024 ** 4,
  ];
  assertEquals(texts.map(formatBytes), [
    "0 B",
    "1023 B",
    "1.00 KiB",
    "1.50 KiB",
    "10.0 KiB",
    "12.3 MiB",
    "1.00 GiB",
    "5.00 TiB",
    "5000.0 TiB",
  ]);
});

Deno.test("MemoryLedger keeps live bytes and their peak", () => {
  const ledger = new MemoryLedger();
  ledger.add(100, "a");
  ledger.add(50, "b");
  ledger.remove(100);
  ledger.add(60, "c");
  assertEquals([ledger.live, ledger.peak], [110, 150]);
});

Deno.test("MemoryLedger refuses bytes over its budget, counts none of them and names what to lower", () => {
  const ledger = new MemoryLedger();
  ledger.budget = 2048;
  ledger.add(1024, "weights");
  const error = assertThrows(
    () => ledger.add(1025, "logits"),
    MemoryError,
    "Cannot allocate logits: 1.00 KiB",
  );
  for (const part of ["1.00 KiB in use", "2.00 KiB available", "--batch-size"]) {
    assertEquals(error.message.includes(part), true, error.message);
  }
  assertEquals([ledger.live, ledger.peak], [1024, 1024]);
  ledger.add(1024, "logits");
  assertEquals(ledger.live, 2048);
});

gpuTest("a plan counts what the device counts", (device) => {
  const plan = planAllocator();
  const before = device.memory.live;
  for (const allocator of [plan, device]) {
    const first = tensorOf(allocator, 5);
    tensorFrom(allocator, { data: Uint32Array.of(1, 2, 3), label: "data" });
    tensorOf(allocator, 0);
    destroyTensor(allocator, first);
  }
  assertEquals(plan.memory.live, device.memory.live - before);
  assertEquals(plan.memory.peak, 64);
  return Promise.resolve();
});

Deno.test("BufferScope frees its buffers together and nobody else's", () => {
  const device = planAllocator();
  const outside = tensorOf(device, 100);
  const scope = new BufferScope(device);
  const freed = tensorOf(scope, 200);
  tensorOf(scope, 300);
  tensorOf(scope, 400);
  assertEquals([scope.memory.live, device.memory.live], [4000, 4000]);
  destroyTensor(scope, freed);
  assertEquals(device.memory.live, 3200);
  scope.destroy();
  assertEquals(device.memory.live, 400);
  scope.destroy();
  assertEquals(device.memory.live, 400);
  destroyTensor(device, outside);
  assertEquals(device.memory.live, 0);
});

gpuTest(
  "a device binds what its adapter does, a scope what its parent does and a plan anything",
  (device) => {
    assertEquals(device.bindingLimit, device.limits.maxStorageBufferBindingSize);
    assertEquals(new BufferScope(device).bindingLimit, device.bindingLimit);
    assertEquals(planAllocator().bindingLimit, Infinity);
    return Promise.resolve();
  },
);

Deno.test("BufferScope keeps its own buffers when it destroys another's", () => {
  const device = planAllocator();
  const scope = new BufferScope(device);
  tensorOf(scope, 200);
  destroyTensor(scope, tensorOf(device, 100));
  scope.destroy();
  assertEquals(device.memory.live, 0);
});

gpuTest("BufferScope gives a device's memory back", async (device) => {
  const before = device.memory.live;
  const scope = new BufferScope(device);
  tensorFrom(scope, { data: new Float32Array(1000), label: "data" });
  assertEquals(device.memory.live, before + 4000);
  scope.destroy();
  assertEquals(device.memory.live, before);
  await device.settle();
});
