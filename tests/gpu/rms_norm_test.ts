import { assertThrows } from "@std/assert";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { caseRows, manyRows, type RowCase, rowCases, writtenPart } from "../support/row_cases.ts";
import * as reference from "../reference/rms_norm.ts";
import { rmsNorm, rmsNormBackward } from "../../gpu/kernels/rms_norm.ts";
import { columnSlices } from "../../gpu/kernels/row_lanes.ts";

const eps = 1e-5;
/** Rounding of the largest value; sums of a thousand float32 products stay within it. */
const relative = 2e-6;

const longRow: RowCase = { name: "a row of 70,000", count: 1, maximum: 1, dim: 70000 };

const variants = [
  { accumulate: false, shapes: "software" },
  { accumulate: true, shapes: "hardware" },
] as const;

for (const rowCase of [...rowCases, manyRows, longRow]) {
  const { name, count, maximum, dim } = rowCase;
  for (const { accumulate, shapes } of variants) {
    const title = `rmsNorm and its gradients match the reference with ${name}, ${shapes} launch shapes` +
      (accumulate ? ", accumulated" : "");
    gpuTest(title, async (opened) => {
      const device = shapes === "hardware" ? asHardware(opened) : opened;
      const random = createRandom(7);
      const x = random.normals(maximum * dim);
      const weight = random.normals(dim);
      const gradOut = random.normals(maximum * dim);
      const rows = caseRows(device, rowCase);
      const shape = [maximum, dim];
      const tensors = {
        x: upload(device, x, shape),
        weight: upload(device, weight),
        rrms: blank(device, [maximum]),
      };
      const out = blank(device, shape);
      const gradX = blank(device, shape, accumulate ? 0.5 : NaN);
      const gradWeight = blank(device, [dim], 0.25);
      const [gotOut, gotRrms, gotGradX, gotGradWeight] = await run(device, (commands) => {
        recordRows(commands, rows);
        rmsNorm(commands, { ...tensors, out }, { rows, eps });
        const gradients = { gradOut: upload(device, gradOut, shape), gradX, gradWeight };
        rmsNormBackward(commands, { ...tensors, ...gradients }, { rows, accumulate });
      }, [out, tensors.rrms, gradX, gradWeight]);

      const used = { x: x.subarray(0, count * dim), weight, gradOut: gradOut.subarray(0, count * dim) };
      const forward = reference.rmsNorm(used, { eps });
      const backward = reference.rmsNormBackward({ ...used, rrms: forward.rrms });
      assertClose(writtenPart(gotOut!, count * dim), forward.out, { relative, label: "out" });
      assertClose(writtenPart(gotRrms!, count), forward.rrms, { relative, label: "rrms" });
      const wanted = Float64Array.from(
        gotGradX!,
        (_, i) => (backward.gradX[i] ?? 0) + (accumulate ? 0.5 : 0),
      );
      const length = accumulate ? maximum * dim : count * dim;
      assertClose(writtenPart(gotGradX!, length), wanted.subarray(0, length), { relative, label: "gradX" });
      // Thousands of terms of both signs: the sum is small against them.
      const added = backward.gradWeight.map((value) => value + 0.25);
      assertClose(gotGradWeight!, added, { relative: 1e-5, label: "gradWeight" });
    });
  }
}

gpuTest("columnSlices refuses more rows than its slices can loop over", (device) => {
  assertThrows(() => columnSlices(device, 10_000_000), RangeError, "lower --batch-size or --sequence-length");
  return Promise.resolve();
});
