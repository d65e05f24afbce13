import { assertEquals, assertThrows } from "@std/assert";
import { blankIndices, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { recordRows } from "../support/packing.ts";
import { caseRows } from "../support/row_cases.ts";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { MemoryError } from "../../gpu/errors.ts";
import { defineKernel } from "../../gpu/kernel.ts";
import { rowGrid } from "../../gpu/rows.ts";
import { createTensor, viewTensor } from "../../gpu/tensor.ts";

const SETTINGS = defineKernel(
  "settings.wgsl",
  `struct Settings {
  first: u32, // comments may name types: f32
  second: f32,
  third: i32,
}
@group(0) @binding(0) var<storage, read_write> out: array<u32>;
@group(0) @binding(1) var<uniform> settings: Settings;
@compute @workgroup_size(1) fn write() {
  out[0] = settings.first;
  out[1] = bitcast<u32>(settings.second);
  out[2] = bitcast<u32>(settings.third);
}
@compute @workgroup_size(1) fn append() {
  out[out[0]] = settings.first;
  out[0] += 1u;
}`,
);

const STEPS = defineKernel(
  "steps.wgsl",
  `@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(1) fn add_source() { out[0] += source[0]; }
@group(0) @binding(2) var<storage, read> other: array<u32>;
@compute @workgroup_size(1) fn add_both() { out[0] += source[0] + other[0]; }
@compute @workgroup_size(1) fn mark(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
) {
  let i = group.x + group.y * groups.x + group.z * groups.x * groups.y;
  if (i < arrayLength(&out)) { out[i] += 1u; }
}`,
);

const grid = [1, 1, 1] as const;

gpuTest("Commands packs settings by name and type", async (device) => {
  const out = blankIndices(device, [3]);
  const [met] = await run(device, (commands) => {
    const settings = { third: -3, second: 0.1, first: 4294967295 };
    commands.dispatch(SETTINGS, { entryPoint: "write", tensors: { out }, settings, grid });
  }, [out]);
  assertEquals(met![0], 4294967295);
  assertEquals(new Float32Array(met!.buffer)[1], Math.fround(0.1));
  assertEquals(new Int32Array(met!.buffer)[2], -3);
});

gpuTest("Commands keeps the settings of each of 600 dispatches", async (device) => {
  const out = uploadIndices(device, [1, ...Array<number>(600).fill(0)]);
  const [met] = await run(device, (commands) => {
    for (let first = 0; first < 600; first++) {
      const settings = { first: first * 7, second: 0, third: 0 };
      commands.dispatch(SETTINGS, { entryPoint: "append", tensors: { out }, settings, grid });
    }
  }, [out]);
  assertEquals([...met!], [601, ...Array.from({ length: 600 }, (_, i) => i * 7)]);
});

gpuTest("Commands refuses what a file does not declare", (device) => {
  const commands = new Commands(device, "test");
  const out = blankIndices(device, [3]);
  const settings = { first: 1, second: 1, third: 1 };
  const wrong = [
    { tensors: { result: out }, settings, message: 'settings write: the file has no tensor "result"' },
    { tensors: { out }, settings: { ...settings, fourth: 1 }, message: 'the file has no setting "fourth"' },
    { tensors: { out }, settings: { first: 1, second: 1 }, message: 'setting "third" is missing' },
  ];
  for (const { message, ...dispatch } of wrong) {
    assertThrows(
      () => commands.dispatch(SETTINGS, { ...dispatch, entryPoint: "write", grid } as never),
      TypeError,
      message,
    );
  }
  assertEquals(commands.steps.length, 0);
  return Promise.resolve();
});

gpuTest(
  "Commands refuses a buffer bound for reading and for writing, but not for reading twice",
  async (device) => {
    const both = uploadIndices(device, Array.from({ length: 128 }, (_, i) => i));
    const [source, other] = [viewTensor(both, { shape: [64] }), viewTensor(both, { start: 64, shape: [64] })];
    const refused = new Commands(device, "test");
    assertThrows(
      () => refused.dispatch(STEPS, { entryPoint: "add_source", tensors: { source, out: other }, grid }),
      TypeError,
      '"out" and "source" share a buffer, one for writing',
    );
    const out = uploadIndices(device, [1]);
    const [met] = await run(device, (commands) => {
      commands.dispatch(STEPS, { entryPoint: "add_both", tensors: { source, other, out }, grid });
    }, [out]);
    assertEquals([...met!], [65]);
  },
);

gpuTest("Commands refuses grids and bindings beyond the adapter's limits", (device) => {
  const commands = new Commands(device, "test");
  const out = blankIndices(device, [3]);
  const limit = device.limits.maxComputeWorkgroupsPerDimension;
  for (const wrong of [[limit + 1, 1, 1], [1, -1, 1], [1, 1, 1.5], [NaN, 1, 1]] as const) {
    assertThrows(
      () => commands.dispatch(STEPS, { entryPoint: "mark", tensors: { out }, grid: wrong }),
      RangeError,
      "steps mark: grid",
    );
  }
  const large = { ...out, shape: [device.limits.maxStorageBufferBindingSize / 4 + 1] };
  assertThrows(
    () => commands.dispatch(STEPS, { entryPoint: "mark", tensors: { out: large }, grid }),
    MemoryError,
    "more than the adapter binds at once",
  );
  return Promise.resolve();
});

for (const count of [0, 1, 7, 100_003]) {
  gpuTest(`Commands dispatches indirectly for a count of ${count} decided on the GPU`, async (device) => {
    const rows = caseRows(device, { count, maximum: 200_000 });
    const out = blankIndices(device, [200_000]);
    const [met] = await run(device, (commands) => {
      recordRows(commands, rows);
      commands.dispatch(STEPS, {
        entryPoint: "mark",
        tensors: { out },
        grid: rowGrid(rows, { unitsPerGroup: 1 }),
      });
    }, [out]);
    // Past 65,535 the grid is a rectangle, whose last workgroups are the kernel's to leave out.
    const width = Math.min(count, 65535);
    const groups = width * Math.ceil(count / 65535);
    assertEquals(met!.indexOf(0), groups);
    assertEquals(Array.from(met!).reduce((sum, value) => sum + value, 0), groups);
  });
}

gpuTest("Commands rounds indirect grids up and takes z from the request", async (device) => {
  const rows = caseRows(device, { count: 7, maximum: 9 });
  const out = blankIndices(device, [64]);
  const [met] = await run(device, (commands) => {
    recordRows(commands, rows);
    const indirect = rowGrid(rows, { unitsPerRow: 3, unitsPerGroup: 4, z: 2 });
    commands.dispatch(STEPS, { entryPoint: "mark", tensors: { out }, grid: indirect });
  }, [out]);
  assertEquals(met!.indexOf(0), 12);
});

gpuTest("submit runs clears and copies in order with the dispatches around them", async (device) => {
  const source = uploadIndices(device, [5]);
  const [out, before, after] = [
    uploadIndices(device, [1]),
    blankIndices(device, [1]),
    blankIndices(device, [1]),
  ];
  const addSource = { entryPoint: "add_source", tensors: { source, out }, grid };
  const met = await run(device, (commands) => {
    commands.dispatch(STEPS, addSource);
    commands.copy(out, before);
    commands.clear(out);
    commands.dispatch(STEPS, addSource);
    commands.dispatch(STEPS, addSource);
    commands.copy(out, after);
    commands.clear(source);
    commands.dispatch(STEPS, addSource);
  }, [before, after, out]);
  assertEquals(met.map(([value]) => value), [6, 10, 10]);
});

gpuTest("Commands refuses to copy between sizes", (device) => {
  const commands = new Commands(device, "test");
  assertThrows(
    () => commands.copy(upload(device, [1, 2]), upload(device, [1])),
    RangeError,
    "Cannot copy input (2) to input (1): sizes differ",
  );
  return Promise.resolve();
});

gpuTest("Commands gives its buffers back when destroyed", (device: GpuDevice) => {
  const out = createTensor(device, { shape: [3], dtype: "u32", label: "out" });
  const before = device.memory.live;
  const commands = new Commands(device, "test");
  const settings = { first: 1, second: 1, third: 1 };
  commands.dispatch(SETTINGS, { entryPoint: "write", tensors: { out }, settings, grid });
  commands.destroy();
  assertEquals(device.memory.live, before);
  return Promise.resolve();
});
