import { assertEquals, assertThrows } from "@std/assert";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { caseRows, manyRows, rowCases, writtenPart } from "../support/row_cases.ts";
import { Commands } from "../../gpu/commands.ts";
import { add } from "../../gpu/kernels/add.ts";

for (const rowCase of [...rowCases, manyRows]) {
  const { name, count, maximum, dim } = rowCase;
  gpuTest(`add gives the rounded sums with ${name}`, async (device) => {
    const random = createRandom(1);
    const a = Float32Array.from(random.normals(maximum * dim));
    const b = Float32Array.from(random.normals(maximum * dim));
    const rows = caseRows(device, rowCase);
    const shape = [maximum, dim];
    const out = blank(device, shape);
    const [met] = await run(device, (commands) => {
      recordRows(commands, rows);
      add(commands, { a: upload(device, a, shape), b: upload(device, b, shape), out }, { rows });
    }, [out]);
    assertEquals(
      writtenPart(met!, count * dim),
      Array.from(a.subarray(0, count * dim), (value, i) => Math.fround(value + b[i]!)),
    );
  });
}

gpuTest("add refuses a tensor of another width", (device) => {
  const rows = caseRows(device, { count: 2, maximum: 2 });
  const [a, b, out] = [blank(device, [2, 8]), blank(device, [2, 4]), blank(device, [2, 8])];
  const commands = new Commands(device, "test");
  assertThrows(
    () => add(commands, { a, b, out }, { rows }),
    TypeError,
    "add: b has shape (2,4), expected (2,8)",
  );
  return Promise.resolve();
});
