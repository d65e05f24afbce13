import { assertEquals, assertThrows } from "@std/assert";
import { Commands, submit } from "../../gpu/commands.ts";
import { defineKernel } from "../../gpu/kernel.ts";
import { planAllocator } from "../../gpu/memory.ts";
import { readTensor } from "../../gpu/readback.ts";
import { dynamicRows, IndirectGrids, linearGrid, rowGrid, staticRows } from "../../gpu/rows.ts";
import { createTensor, writeTensor } from "../../gpu/tensor.ts";
import { blankIndices, gpuTest, run, uploadIndices } from "../support/device.ts";

/** Counts the visits of each row the way every row kernel numbers its workgroups. */
const VISITS = defineKernel(
  "visits.wgsl",
  `@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read_write> visits: array<u32>;
@compute @workgroup_size(1) fn visit(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
) {
  let row = group.x + group.y * groups.x;
  if (row < rows[0]) { visits[row] += 1u; }
}
@group(0) @binding(2) var<storage, read_write> count: array<u32>;
@compute @workgroup_size(1) fn double() { count[0] *= 2u; }`,
);

Deno.test("linearGrid turns to y past 65,535 workgroups", () => {
  assertEquals(linearGrid(0), [0, 0, 1]);
  assertEquals(linearGrid(1), [1, 1, 1]);
  assertEquals(linearGrid(65_535, { z: 3 }), [65_535, 1, 3]);
  assertEquals(linearGrid(65_536), [65_535, 2, 1]);
  assertEquals(linearGrid(200_000), [65_535, 4, 1]);
});

Deno.test("rowGrid rounds a row count's units up to workgroups", () => {
  const rows = staticRows(planAllocator(), 1001);
  assertEquals(rowGrid(rows, { unitsPerGroup: 64 }), [16, 1, 1]);
  assertEquals(rowGrid(rows, { unitsPerGroup: 64, unitsPerRow: 3, z: 2 }), [47, 1, 2]);
  assertEquals(rowGrid(rows, { unitsPerGroup: 1, unitsPerRow: 100 }), [65_535, 2, 1]);
});

for (const count of [65_535, 65_536, 150_001]) {
  gpuTest(`${count} rows are visited once each, by a fixed and by a dynamic grid`, async (device) => {
    const visits = blankIndices(device, [count + 100]);
    const dynamic = dynamicRows(device, { count: uploadIndices(device, [count]), maximum: count + 100 });
    const [met] = await run(device, (commands) => {
      dynamic.indirect!.record(commands, dynamic.count);
      for (const rows of [staticRows(device, count), dynamic]) {
        const grid = rowGrid(rows, { unitsPerGroup: 1 });
        commands.dispatch(VISITS, { entryPoint: "visit", tensors: { rows: rows.count, visits }, grid });
      }
    }, [visits]);
    assertEquals(met!.indexOf(0), count);
    assertEquals(met!.subarray(0, count).every((times) => times === 2), true);
  });
}

gpuTest("a dynamic grid follows a count that an earlier kernel of the program changes", async (device) => {
  const count = uploadIndices(device, [3]);
  const rows = dynamicRows(device, { count, maximum: 40 });
  const visits = blankIndices(device, [40]);
  const commands = new Commands(device, "test");
  commands.dispatch(VISITS, { entryPoint: "double", tensors: { count }, grid: [1, 1, 1] });
  rows.indirect!.record(commands, count);
  const grid = rowGrid(rows, { unitsPerGroup: 1 });
  commands.dispatch(VISITS, { entryPoint: "visit", tensors: { rows: count, visits }, grid });
  const visited: number[] = [];
  for (const start of [3, 0, 20]) {
    writeTensor(device, count, Uint32Array.of(start));
    writeTensor(device, visits, new Uint32Array(40));
    submit(device, [commands]);
    visited.push(Array.from(await readTensor(device, visits)).reduce((sum, times) => sum + times, 0));
  }
  assertEquals(visited, [6, 0, 40]);
});

Deno.test("IndirectGrids gives equal requests one place and refuses more kinds than it has room for", () => {
  const device = planAllocator();
  const grids = new IndirectGrids(device);
  assertEquals(device.memory.live, 2 * 64 * 4 * 4); // two tables of 64 entries of four u32
  const request = { unitsPerRow: 1, unitsPerGroup: 1, z: 1 };
  const places = [1, 2, 1, 2, 3].map((unitsPerGroup) => grids.grid({ ...request, unitsPerGroup }));
  assertEquals(places.map((place) => "offset" in place && place.offset), [0, 16, 0, 16, 32]);
  for (let kind = 4; kind <= 64; kind++) grids.grid({ ...request, unitsPerGroup: kind });
  assertThrows(() => grids.grid({ ...request, unitsPerGroup: 65 }), RangeError, "Too many launch shapes");
  grids.grid({ ...request, unitsPerGroup: 64 });
});

Deno.test("a dynamic count keeps its own tensor and maximum", () => {
  const device = planAllocator();
  const count = createTensor(device, { shape: [1], dtype: "u32", label: "count" });
  const rows = dynamicRows(device, { count, maximum: 9 });
  assertEquals([rows.count, rows.maximum], [count, 9]);
  assertEquals(staticRows(device, 4).indirect, null);
});
