import { assert, assertEquals, assertRejects } from "@std/assert";
import { blank, gpuTest, upload, uploadIndices } from "../support/device.ts";
import { caseRows } from "../support/row_cases.ts";
import { Commands, submit } from "../../gpu/commands.ts";
import { GpuDevice } from "../../gpu/device.ts";
import { matmulVector } from "../../gpu/kernels/matmul_vector.ts";
import { rmsNorm } from "../../gpu/kernels/rms_norm.ts";
import { sum } from "../../gpu/kernels/sum.ts";
import { swiglu } from "../../gpu/kernels/swiglu.ts";
import { readTensor } from "../../gpu/readback.ts";
import { dynamicRows } from "../../gpu/rows.ts";
import { type DispatchTime, timeWork } from "../../gpu/timing.ts";

/** Times programs that are submitted together. */
async function timeDispatches(device: GpuDevice, programs: readonly Commands[]): Promise<DispatchTime[]> {
  const { times } = await timeWork(device, () => Promise.resolve(submit(device, programs)));
  return times;
}

gpuTest("timeWork gives each dispatch of all programs its time", async (device) => {
  const rows = caseRows(device, { count: 1000, maximum: 1000 });
  const gateUp = upload(device, new Float64Array(1000 * 128), [1000, 128]);
  const out = blank(device, [1000, 64]);
  const first = new Commands(device, "first");
  swiglu(first, { gateUp, out }, { rows });
  const second = new Commands(device, "second");
  second.clear(out);
  sum(second, { values: gateUp, out }, { rows });
  swiglu(second, { gateUp, out }, { rows });
  const before = device.memory.live;
  await timeDispatches(device, [first]); // makes the staging buffer, which stays
  const staged = device.memory.live;
  const times = await timeDispatches(device, [first, second]);
  assertEquals(times.map(({ label }) => label), ["swiglu forward", "sum forward", "swiglu forward"]);
  for (const { milliseconds } of times) {
    assert(milliseconds >= 0 && milliseconds < 1000, `${milliseconds} ms`);
  }
  assert(times[0]!.milliseconds + times[2]!.milliseconds > 0);
  assert(staged >= before);
  assertEquals(device.memory.live, staged);
});

gpuTest(
  "timeWork says when each dispatch ran, for what part, and its work for the rows that it found",
  async (device) => {
    const count = uploadIndices(device, [3]);
    const rows = dynamicRows(device, { count, maximum: 8 });
    const [x, weight] = [blank(device, [8, 4], 1), blank(device, [4], 1)];
    const [normed, rrms, out] = [blank(device, [8, 4]), blank(device, [8]), blank(device, [8, 4])];
    const commands = new Commands(device, "parts");
    rows.indirect!.record(commands, count);
    commands.mark("norm");
    rmsNorm(commands, { x, weight, out: normed, rrms }, { rows, eps: 1e-5 });
    commands.mark("product");
    matmulVector(commands, { x, weight: blank(device, [4, 4], 1), residual: null, out }, { rows });
    const fewer = new Commands(device, "fewer rows");
    fewer.copy(uploadIndices(device, [1]), count);
    const times = await timeDispatches(device, [commands, fewer, commands]);
    assertEquals(times.map(({ part }) => part), ["", "norm", "product", "", "norm", "product"]);
    assertEquals(times.map(({ rows }) => rows), [null, 3, 3, null, 1, 1]);
    // A norm reads and writes four numbers of a row; the product reads 16 weights, and two times four numbers of a row.
    // Before them the row count and 64 launch shapes are read.
    const [norm, product, grids] = [16 * 2, 2 * 16, 4 + 64 * 16];
    assertEquals(times.map(({ work }) => work?.bytes), [
      grids,
      3 * norm,
      64 + 3 * product,
      grids,
      norm,
      64 + product,
    ]);
    assertEquals(times[2]!.work!.flops, 3 * 2 * 16);
    assertEquals(times[0]!.startMilliseconds, 0);
    for (const [i, { startMilliseconds, milliseconds }] of times.slice(0, -1).entries()) {
      assert(
        times[i + 1]!.startMilliseconds >= startMilliseconds + milliseconds - 1e-6,
        `dispatch ${i} overlaps`,
      );
    }
  },
);

gpuTest("timeWork goes beyond one set of timestamps", async (device) => {
  const rows = caseRows(device, { count: 1, maximum: 1 });
  const [values, out] = [upload(device, [1, 1, 1, 1]), blank(device, [1], 0)];
  const commands = new Commands(device, "many");
  for (let i = 0; i < 2050; i++) sum(commands, { values, out }, { rows });
  assertEquals((await timeDispatches(device, [commands])).length, 2050);
  assertEquals(await timeDispatches(device, []), []);
});

gpuTest(
  "timeWork does the work as it is done without timestamps, and times all its submits",
  async (device) => {
    const rows = caseRows(device, { count: 1, maximum: 1 });
    const [values, out] = [upload(device, [3]), blank(device, [1])];
    const commands = new Commands(device, "work");
    sum(commands, { values, out }, { rows, scale: 2 });
    commands.copy(out, values);
    sum(commands, { values, out }, { rows, scale: 2 });
    const { result, times } = await timeWork(device, async () => {
      submit(device, [commands]);
      const [first] = await readTensor(device, out);
      submit(device, [commands, commands]);
      return first;
    });
    assertEquals(result, 3 * 4);
    assertEquals(times.map(({ label }) => label), new Array(6).fill("sum forward"));
    // Each program doubles what the one before left in values, copies it there, and doubles it again.
    assertEquals(Array.from(await readTensor(device, out)), [3 * 16]);
  },
);

gpuTest("timeWork lets an error of the work through and times nothing after it", async (device) => {
  await assertRejects(() => timeWork(device, () => Promise.reject(new Error("enough"))), Error, "enough");
  const rows = caseRows(device, { count: 1, maximum: 1 });
  const [values, out] = [upload(device, [1]), blank(device, [1])];
  const commands = new Commands(device, "after");
  sum(commands, { values, out }, { rows, scale: 2 });
  submit(device, [commands]);
  assertEquals(Array.from(await readTensor(device, out)), [2]);
});

gpuTest("timeWork refuses an adapter without timestamps", async ({ handle, info }) => {
  const plain = new GpuDevice(handle, info, new Set());
  await assertRejects(() => timeDispatches(plain, []), TypeError, "grants no timestamps");
});
