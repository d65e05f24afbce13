import { assertEquals, assertThrows } from "@std/assert";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { caseRows } from "../support/row_cases.ts";
import { Commands } from "../../gpu/commands.ts";
import { createTensor } from "../../gpu/tensor.ts";
import { sum } from "../../gpu/kernels/sum.ts";

const cases = [
  { name: "tidy sizes", count: 512, maximum: 512 },
  { name: "odd sizes", count: 777, maximum: 777 },
  { name: "one value", count: 1, maximum: 1 },
  { name: "a dynamic count", count: 300, maximum: 900 },
  { name: "a dynamic count of zero", count: 0, maximum: 900 },
  { name: "1,000,000 values", count: 1_000_000, maximum: 1_000_000 },
];

for (const { name, count, maximum } of cases) {
  gpuTest(`sum scales, stores, adds and takes the mean with ${name}`, async (device) => {
    const values = Float64Array.from(createRandom(9).normals(maximum), (value) => value + 1);
    const rows = caseRows(device, { count, maximum });
    const input = upload(device, values);
    const out = blank(device, [5], 5);
    const [met] = await run(device, (commands) => {
      sum(commands, { values: input, out }, { rows });
      sum(commands, { values: input, out }, { rows, slot: 1, scale: 0.5, accumulate: true });
      sum(commands, { values: input, out }, { rows, slot: 2, mean: true });
      sum(commands, { values: input, out }, { rows, slot: 3, scale: -2, mean: true, accumulate: true });
    }, [out]);
    const total = values.subarray(0, count).reduce((a, b) => a + b, 0);
    const mean = total / Math.max(1, count);
    assertClose(met!.subarray(0, 2), [total, 5 + total / 2], { relative: 1e-6, label: "sums" });
    assertClose(met!.subarray(2), [mean, 5 - 2 * mean, 5], { relative: 1e-6, label: "means" });
  });
}

gpuTest("sum reaches 10,000,000 values", async (device) => {
  const count = 10_000_000;
  const values = createTensor(device, { shape: [count], label: "values" });
  // The last values of the last lanes: a loop that ends early misses them.
  const last = upload(device, new Float64Array(512).fill(1));
  const tail = { ...values, offset: (count - 512) * 4, shape: [512] };
  const out = blank(device, [1]);
  const rows = caseRows(device, { count, maximum: count });
  const [met] = await run(device, (commands) => {
    commands.copy(last, tail);
    sum(commands, { values, out }, { rows });
  }, [out]);
  assertEquals([...met!], [512]);
});

gpuTest("sum refuses a slot past the end and more values than it can loop over", (device) => {
  const commands = new Commands(device, "test");
  const [values, out] = [blank(device, [4]), blank(device, [2])];
  const rows = caseRows(device, { count: 4, maximum: 4 });
  assertThrows(() => sum(commands, { values, out }, { rows, slot: 2 }), RangeError, "slot 2 is past the 2");
  const many = { rows: { ...rows, maximum: 20_000_000 } };
  const large = { ...values, shape: [20_000_000] };
  assertThrows(() => sum(commands, { values: large, out }, many), RangeError, "at most 16640000");
  return Promise.resolve();
});
