import { assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { gpuTest } from "../support/device.ts";
import { openDevice } from "../../gpu/device.ts";
import { GpuError } from "../../gpu/errors.ts";
import { defineKernel, kernelPipeline } from "../../gpu/kernel.ts";

const SCALE = defineKernel(
  "scale.wgsl",
  `override FACTOR: f32;
struct Settings {
  rows: u32, // not columns: u32
  offset: i32,
  scale: f32,
}
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<uniform> settings: Settings;
@compute @workgroup_size(1) fn forward() { out[0] = FACTOR * x[0]; }`,
);

Deno.test("defineKernel finds bindings, settings and their types", () => {
  assertEquals([...SCALE.bindings], [
    ["x", { index: 0, writable: false }],
    ["out", { index: 2, writable: true }],
  ]);
  assertEquals(SCALE.settings, [
    { name: "rows", type: "u32" },
    { name: "offset", type: "i32" },
    { name: "scale", type: "f32" },
  ]);
  assertEquals(SCALE.settingsIndex, 3);
  assertEquals(defineKernel("empty.wgsl", "").settingsIndex, -1);
});

gpuTest("kernelPipeline compiles each combination of constants once", (device) => {
  const request = { kernel: SCALE, entryPoint: "forward", constants: { FACTOR: 2 } };
  const first = kernelPipeline(device, request);
  assertStrictEquals(kernelPipeline(device, { ...request, constants: { FACTOR: 2 } }), first);
  const known = device.pipelines.size;
  kernelPipeline(device, { ...request, constants: { FACTOR: 3 } });
  assertEquals(device.pipelines.size, known + 1);
  return Promise.resolve();
});

Deno.test("kernelPipeline reports a broken shader with file, line and caret", async () => {
  using device = await openDevice();
  const code = `@group(0) @binding(0) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(1) fn forward() {
  out[0] = missing + 1.0;
}`;
  const kernel = defineKernel("broken.wgsl", code);
  kernelPipeline(device, { kernel, entryPoint: "forward", constants: {} });
  const error = await assertRejects(() => device.settle(), GpuError, "Cannot compile broken.wgsl:4:12: ");
  assertEquals(error.kind, "compile");
  assertEquals(error.message.split("\n").slice(1), ["  out[0] = missing + 1.0;", `${" ".repeat(11)}^`]);
});

Deno.test("kernelPipeline names a constant that is missing", async () => {
  using device = await openDevice();
  kernelPipeline(device, { kernel: SCALE, entryPoint: "forward", constants: {} });
  const error = await assertRejects(() => device.settle(), GpuError, "Cannot build scale.wgsl forward: ");
  assertEquals(error.message.includes("FACTOR"), true);
});
