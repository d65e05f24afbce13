import { blank, gpuTest, run, upload } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { caseRows, manyRows, rowCases, writtenPart } from "../support/row_cases.ts";
import * as reference from "../reference/swiglu.ts";
import { swiglu, swigluBackward } from "../../gpu/kernels/swiglu.ts";

/** The exponential of a software adapter is good to about 1e-6. */
const relative = 2e-6;

for (const rowCase of [...rowCases, manyRows]) {
  const { name, count, maximum, dim } = rowCase;
  gpuTest(`swiglu and its gradient match the reference with ${name}`, async (device) => {
    const random = createRandom(2);
    const gateUp = random.normals(maximum * 2 * dim, 3);
    const gradOut = random.normals(maximum * dim);
    const rows = caseRows(device, rowCase);
    const input = upload(device, gateUp, [maximum, 2 * dim]);
    const out = blank(device, [maximum, dim]);
    const gradGateUp = blank(device, [maximum, 2 * dim]);
    const [gotOut, gotGradient] = await run(device, (commands) => {
      recordRows(commands, rows);
      swiglu(commands, { gateUp: input, out }, { rows });
      const gradients = { gradOut: upload(device, gradOut, [maximum, dim]), gradGateUp };
      swigluBackward(commands, { gateUp: input, ...gradients }, { rows });
    }, [out, gradGateUp]);
    const used = { gateUp: gateUp.subarray(0, count * 2 * dim), gradOut: gradOut.subarray(0, count * dim) };
    const settings = { intermediateSize: dim };
    const forward = reference.swiglu(used, settings);
    assertClose(writtenPart(gotOut!, count * dim), forward, { relative, label: "out" });
    const backward = reference.swigluBackward(used, settings);
    assertClose(writtenPart(gotGradient!, count * 2 * dim), backward, { relative, label: "gradGateUp" });
  });
}

gpuTest("swiglu stays finite where the exponential would not", async (device) => {
  const gateUp = Float64Array.of(-200, -1000, 200, 1000, 1, 1, 1, 1);
  const rows = caseRows(device, { count: 1, maximum: 1 });
  const input = upload(device, gateUp, [1, 8]);
  const [out, gradGateUp] = [blank(device, [1, 4]), blank(device, [1, 8])];
  const [gotOut, gotGradient] = await run(device, (commands) => {
    swiglu(commands, { gateUp: input, out }, { rows });
    const gradOut = upload(device, [1, 1, 1, 1], [1, 4]);
    swigluBackward(commands, { gateUp: input, gradOut, gradGateUp }, { rows });
  }, [out, gradGateUp]);
  assertClose(gotOut!, [0, 0, 200, 1000], { relative, label: "out" });
  assertClose(gotGradient!, [0, 0, 1, 1, 0, 0, 200, 1000], { relative, label: "gradGateUp" });
});
