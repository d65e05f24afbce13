import { gelu, geluBackward } from "../../gpu/kernels/gelu.ts";
import * as reference from "../reference/gelu.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { recordRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { caseRows, manyRows, rowCases, writtenPart } from "../support/row_cases.ts";

for (const rowCase of [...rowCases, manyRows]) {
  const { name, count, maximum, dim } = rowCase;
  gpuTest(`gelu and its gradient match the reference with ${name}`, async (device) => {
    const random = createRandom(4);
    const settings = { scale: 0.7 };
    const x = random.normals(maximum * dim, 3);
    const gradOut = random.normals(maximum * dim);
    const rows = caseRows(device, rowCase);
    const shape = [maximum, dim];
    const input = upload(device, x, shape);
    const [out, gradX] = [blank(device, shape), blank(device, shape)];
    const [gotOut, gotGradient] = await run(device, (commands) => {
      recordRows(commands, rows);
      gelu(commands, { x: input, out }, { rows, ...settings });
      const gradients = { gradOut: upload(device, gradOut, shape), gradX };
      geluBackward(commands, { x: input, ...gradients }, { rows, ...settings });
    }, [out, gradX]);
    const used = { x: x.subarray(0, count * dim), gradOut: gradOut.subarray(0, count * dim) };
    const tolerance = { relative: 5e-7 };
    const forward = reference.gelu(used, settings);
    assertClose(writtenPart(gotOut!, count * dim), forward, { ...tolerance, label: "out" });
    const backward = reference.geluBackward(used, settings);
    assertClose(writtenPart(gotGradient!, count * dim), backward, { ...tolerance, label: "gradX" });
  });
}

gpuTest("gelu and its slope are exact to 5e-7 all along the curve", async (device) => {
  const count = 4096;
  const x = Float64Array.from({ length: count }, (_, i) => Math.fround((i - count / 2) / 200));
  const rows = caseRows(device, { count: 1, maximum: 1 });
  const input = upload(device, x, [1, count]);
  const [out, gradX] = [blank(device, [1, count]), blank(device, [1, count])];
  const [gotOut, gotGradient] = await run(device, (commands) => {
    gelu(commands, { x: input, out }, { rows, scale: 1 });
    geluBackward(commands, { x: input, gradOut: blank(device, [1, count], 1), gradX }, { rows, scale: 1 });
  }, [out, gradX]);
  const forward = reference.gelu({ x }, { scale: 1 });
  const backward = reference.geluBackward({ x, gradOut: new Float64Array(count).fill(1) }, { scale: 1 });
  // Relative to 1 where |x| is below it: out / max(|x|, 1) is as large as the distribution itself.
  const scales = x.map((value) => Math.max(Math.abs(value), 1));
  const share = (values: ArrayLike<number>): Float64Array => scales.map((scale, i) => values[i]! / scale);
  assertClose(share(gotOut!), share(forward), { relative: 0, absolute: 5e-7, label: "out" });
  assertClose(gotGradient!, backward, { relative: 0, absolute: 5e-7, label: "gradX" });
});

gpuTest("gelu and its gradient stay finite where the square does not", async (device) => {
  const x = Float64Array.of(-3e38, -1e20, -1000, -14, 3e38, 1e20, 1000, 14);
  const rows = caseRows(device, { count: 1, maximum: 1 });
  const input = upload(device, x, [1, 8]);
  const [out, gradX] = [blank(device, [1, 8]), blank(device, [1, 8])];
  const [gotOut, gotGradient] = await run(device, (commands) => {
    gelu(commands, { x: input, out }, { rows, scale: 1 });
    geluBackward(commands, { x: input, gradOut: blank(device, [1, 8], 1), gradX }, { rows, scale: 1 });
  }, [out, gradX]);
  const tolerance = { relative: 1e-6, label: "out" };
  assertClose(gotOut!.subarray(0, 4), [0, 0, 0, 0], tolerance);
  assertClose(gotOut!.subarray(4).map((value, i) => value / x[4 + i]!), [1, 1, 1, 1], tolerance);
  assertClose(gotGradient!, [0, 0, 0, 0, 1, 1, 1, 1], { ...tolerance, label: "gradX" });
});
