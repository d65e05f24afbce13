import { blank, gpuTest, run, upload } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { casePacking, manyRows, type RowCase, rowCases, writtenPart } from "../support/row_cases.ts";
import * as reference from "../reference/scatter_rows.ts";
import { scatterRows, scatterRowsBackward } from "../../gpu/kernels/scatter_rows.ts";

const gatings = ["weighted", "additive", "replace", "delta"] as const;
const longRow: RowCase = { name: "a row of 270,000", count: 1, maximum: 1, dim: 270000 };
/** A rounding or two of the largest value. */
const relative = 3e-7;

for (const rowCase of [...rowCases, manyRows, longRow]) {
  for (const gating of gatings) {
    gpuTest(
      `scatterRows ${gating} and its gradients match the reference with ${rowCase.name}`,
      async (opened) => {
        const { count, maximum, dim } = rowCase;
        // Half of the gatings take the launch shapes of a hardware GPU.
        const device = gating === "delta" || gating === "additive" ? asHardware(opened) : opened;
        const random = createRandom(8);
        const stateRows = maximum + 5;
        // Every place but the first, fourth and three at the end.
        const places = Array.from({ length: stateRows }, (_, i) => i).filter((i) => i !== 0 && i !== 3).slice(
          0,
          maximum,
        );
        const packing = casePacking(device, { places, count });
        const values = {
          x: random.normals(stateRows * dim),
          z: random.normals(maximum * dim),
          weights: random.normals(maximum),
          gradOut: random.normals(stateRows * dim),
        };
        const tensors = {
          x: upload(device, values.x, [stateRows, dim]),
          z: upload(device, values.z, [maximum, dim]),
          gates: upload(device, values.weights),
          packing,
        };
        const out = blank(device, [stateRows, dim]);
        const gradients = {
          gradState: upload(device, values.gradOut, [stateRows, dim]),
          gradZ: blank(device, [maximum, dim]),
          gradGates: blank(device, [maximum]),
        };
        const [gotOut, gotGradState, gotGradZ, gotGradGates] = await run(device, (commands) => {
          recordRows(commands, packing.rows);
          scatterRows(commands, { ...tensors, out }, { gating });
          scatterRowsBackward(commands, { ...tensors, ...gradients }, { gating });
        }, [out, gradients.gradState, gradients.gradZ, gradients.gradGates]);

        const used = {
          ...values,
          z: values.z.subarray(0, count * dim),
          weights: values.weights.subarray(0, count),
          indices: places.slice(0, count),
        };
        const wanted = reference.scatterRows(used, { gating, width: dim });
        const { gradX, gradZ, gradWeights } = reference.scatterRowsBackward(used, { gating, width: dim });
        assertClose(gotOut!, wanted, { relative, label: "out" });
        assertClose(gotGradState!, gradX, { relative, label: "gradState" });
        assertClose(writtenPart(gotGradZ!, count * dim), gradZ, { relative, label: "gradZ" });
        // Sums of products of both signs, of which the absolute part bounds the rounding.
        const absolute = 1e-7 * dim ** 0.5;
        assertClose(writtenPart(gotGradGates!, count), gradWeights, {
          relative: 2e-6,
          absolute,
          label: "gradGates",
        });
      },
    );
  }
}
