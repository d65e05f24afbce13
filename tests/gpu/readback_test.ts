import { assertEquals, assertRejects } from "@std/assert";
import { blankIndices, gpuTest, upload, uploadIndices } from "../support/device.ts";
import { Commands, submit } from "../../gpu/commands.ts";
import { openDevice } from "../../gpu/device.ts";
import { GpuError } from "../../gpu/errors.ts";
import { defineKernel } from "../../gpu/kernel.ts";
import { readTensor, readTensors } from "../../gpu/readback.ts";
import { createTensor, tensorFrom, viewTensor } from "../../gpu/tensor.ts";

const GENERATOR = defineKernel(
  "generator.wgsl",
  `@group(0) @binding(0) var<storage, read_write> state: array<u32>;
@compute @workgroup_size(1) fn next() { state[0] = state[0] * 1664525u + 1013904223u; }`,
);

gpuTest("readTensor sees every one of 300 steps that depend on each other", async (device) => {
  const state = uploadIndices(device, [1]);
  const commands = new Commands(device, "generator");
  commands.dispatch(GENERATOR, { entryPoint: "next", tensors: { state }, grid: [1, 1, 1] });
  let wanted = 1;
  for (let step = 0; step < 300; step++) {
    submit(device, [commands]);
    wanted = (Math.imul(wanted, 1664525) + 1013904223) >>> 0;
    const [met] = await readTensor(device, state);
    assertEquals(met, wanted);
  }
});

gpuTest("readTensors gives several tensors in their types, views and empty ones included", async (device) => {
  const floats = upload(device, [0.5, -1, 3, 4]);
  const signed = tensorFrom(device, { data: Int32Array.of(-7, 2147483647), label: "signed" });
  const unsigned = uploadIndices(device, [4294967295, 0, 5]);
  const empty = createTensor(device, { shape: [0, 4], label: "empty" });
  const part = viewTensor(floats, { start: 1, shape: [2] });
  assertEquals(await readTensors(device, [floats, empty, signed, unsigned, part]), [
    Float32Array.of(0.5, -1, 3, 4),
    new Float32Array(0),
    Int32Array.of(-7, 2147483647),
    Uint32Array.of(4294967295, 0, 5),
    Float32Array.of(-1, 3),
  ]);
  assertEquals(await readTensor(device, empty), new Float32Array(0));
  assertEquals(await readTensors(device, []), []);
});

gpuTest("readTensor reads large and small tensors in turn", async (device) => {
  const large = uploadIndices(device, Uint32Array.from({ length: 1_000_003 }, (_, i) => i * 3));
  const small = uploadIndices(device, [9]);
  for (let turn = 0; turn < 3; turn++) {
    const met = await readTensor(device, large);
    assertEquals(met.length, 1_000_003);
    assertEquals(met.findIndex((value, i) => value !== i * 3), -1);
    assertEquals([...await readTensor(device, small)], [9]);
  }
});

gpuTest("readTensors answers calls that overlap, each with its own tensors", async (device) => {
  const tensors = Array.from({ length: 5 }, (_, i) => uploadIndices(device, [i]));
  const met = await Promise.all(tensors.map((tensor) => readTensor(device, tensor)));
  assertEquals(met.map(([value]) => value), [0, 1, 2, 3, 4]);
});

Deno.test("readTensor throws what failed before instead of giving bytes", async () => {
  using device = await openDevice();
  const tensor = blankIndices(device, [4]);
  const past = { ...tensor, shape: [1000] };
  await assertRejects(() => readTensor(device, past), GpuError, "Cannot read tensors back");
});
