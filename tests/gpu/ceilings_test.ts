import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { gpuTest } from "../support/device.ts";
import { measureCeilings, partOfCeiling } from "../../gpu/ceilings.ts";

gpuTest("measureCeilings finds speeds that an adapter can have and frees what it took", async (device) => {
  await measureCeilings(device); // leaves a buffer for reading back
  const before = device.memory.live;
  const { flopsPerSecond, bytesPerSecond } = await measureCeilings(device);
  assert(flopsPerSecond > 1e7 && flopsPerSecond < 1e16, `${flopsPerSecond} FLOP/s`);
  assert(bytesPerSecond > 1e7 && bytesPerSecond < 1e15, `${bytesPerSecond} B/s`);
  assertEquals(device.memory.live, before);
});

Deno.test("partOfCeiling is decided by what would take longer at the ceilings", () => {
  const ceilings = { flopsPerSecond: 1e9, bytesPerSecond: 1e8 };
  const at = (flops: number, bytes: number): number =>
    partOfCeiling({ flops, bytes }, { milliseconds: 10, ceilings });
  assertAlmostEquals(at(5e6, 1e4), 0.5, 1e-12);
  assertAlmostEquals(at(5e6, 8e5), 0.8, 1e-12);
  assertEquals(at(0, 0), 0);
});
