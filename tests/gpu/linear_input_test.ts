/** Linear layers that make their input on the way: after a norm, after SwiGLU. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import { normLinear, swigluLinearAdd } from "../../gpu/kernels/linear.ts";
import { matmulVector } from "../../gpu/kernels/matmul_vector.ts";
import * as reference from "../reference/linear.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { swiglu } from "../reference/swiglu.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { caseRows, type RowCase, writtenPart } from "../support/row_cases.ts";

const columns = 36;
const eps = 1e-5;

/** On both sides of the rows that take one dispatch. */
const cases: readonly RowCase[] = [
  { name: "one row", count: 1, maximum: 1, dim: 256 },
  { name: "two rows", count: 2, maximum: 2, dim: 20 },
  { name: "16 rows", count: 16, maximum: 16, dim: 68 },
  { name: "17 rows", count: 17, maximum: 17, dim: 36 },
  { name: "a dynamic count", count: 5, maximum: 16, dim: 24 },
  { name: "a dynamic count of zero", count: 0, maximum: 16, dim: 24 },
];

/** Rows of random numbers; past the count NaN, because nothing may come of them. */
function rowsOf(values: Float64Array, { maximum, width }: { maximum: number; width: number }): Float64Array {
  return Float64Array.from({ length: maximum * width }, (_, i) => values[i] ?? NaN);
}

for (const rowCase of cases) {
  for (const shapes of ["software", "hardware"] as const) {
    for (const keeps of [false, true]) {
      const { name, count, maximum, dim } = rowCase;
      const title = `${name}, ${shapes} variant${keeps ? ", for a backward pass" : ""}`;
      const isOne = !keeps && maximum <= 16;

      gpuTest(`normLinear is the product of the normed rows with ${title}`, async (opened) => {
        const device = shapes === "hardware" ? asHardware(opened) : opened;
        const random = createRandom(41);
        const [x, norm] = [random.normals(count * dim), random.normals(dim)];
        const weight = random.normals(columns * dim);
        const rows = caseRows(device, rowCase);
        const tensors = {
          x: upload(device, rowsOf(x, { maximum, width: dim }), [maximum, dim]),
          norm: upload(device, norm, [dim]),
          weight: upload(device, weight, [columns, dim]),
          out: blank(device, [maximum, columns]),
          normed: blank(device, [maximum, dim]),
          rrms: blank(device, [maximum]),
        };
        const [out, normed, rrms] = await run(device, (commands) => {
          recordRows(commands, rows);
          normLinear(commands, tensors, { rows, eps, keeps });
        }, [tensors.out, tensors.normed, tensors.rrms]);
        const wanted = rmsNorm({ x, weight: norm }, { eps });
        const sizes = { inFeatures: dim, outFeatures: columns };
        const product = reference.linear({ x: wanted.out, weight: weight }, sizes);
        assertClose(writtenPart(out!, count * columns), product, { relative: 3e-6, label: "out" });
        if (isOne) assert(normed!.every(Number.isNaN) && rrms!.every(Number.isNaN), "something was kept");
        else assertClose(writtenPart(rrms!, count), wanted.rrms, { relative: 2e-6, label: "rrms" });
      });

      gpuTest(`swigluLinearAdd is the product of the activated rows with ${title}`, async (opened) => {
        const device = shapes === "hardware" ? asHardware(opened) : opened;
        const random = createRandom(42);
        const gateUp = random.normals(count * 2 * dim, 2);
        const [weight, residual] = [random.normals(columns * dim), random.normals(count * columns)];
        const rows = caseRows(device, rowCase);
        const tensors = {
          gateUp: upload(device, rowsOf(gateUp, { maximum, width: 2 * dim }), [maximum, 2 * dim]),
          weight: upload(device, weight, [columns, dim]),
          residual: upload(device, rowsOf(residual, { maximum, width: columns }), [maximum, columns]),
          out: blank(device, [maximum, columns]),
          activated: blank(device, [maximum, dim]),
        };
        const [out, activated] = await run(device, (commands) => {
          recordRows(commands, rows);
          swigluLinearAdd(commands, tensors, { rows, keeps });
        }, [tensors.out, tensors.activated]);
        const wanted = swiglu({ gateUp }, { intermediateSize: dim });
        const product = reference.linear({ x: wanted, weight }, { inFeatures: dim, outFeatures: columns });
        const sum = product.map((value, i) => value + residual[i]!);
        assertClose(writtenPart(out!, count * columns), sum, { relative: 3e-6, label: "out" });
        if (isOne) assert(activated!.every(Number.isNaN), "something was kept");
        else {assertClose(writtenPart(activated!, count * dim), wanted, {
            relative: 2e-6,
            label: "activated",
          });}
      });
    }
  }
}

gpuTest(
  "a normed row has the same bits in any company, and a gate of any size stays finite",
  async (device) => {
    const random = createRandom(43);
    const [dim, weight, norm] = [44, random.normals(columns * 44), random.normals(44)];
    const own = random.normals(dim);
    const lasts: number[][] = [];
    for (const count of [1, 2, 3, 5, 16]) {
      const x = random.normals(count * dim, 50);
      x.set(own, (count - 1) * dim);
      const rows = caseRows(device, { count, maximum: count });
      const out = blank(device, [count, columns]);
      const [got] = await run(device, (commands) => {
        const input = { kind: "normed", norm: upload(device, norm, [dim]), eps } as const;
        const tensors = {
          x: upload(device, x, [count, dim]),
          weight: upload(device, weight, [columns, dim]),
        };
        matmulVector(commands, { ...tensors, residual: null, out }, { rows, input });
      }, [out]);
      lasts.push(Array.from(got!).slice(-columns));
    }
    for (const last of lasts) assertEquals(last, lasts[0]);

    const rows = caseRows(device, { count: 1, maximum: 1 });
    const out = blank(device, [1, 4]);
    const gates = [-1e4, -90, -1, 0, 1, 90, 1e4, 5];
    const [got] = await run(device, (commands) => {
      const x = upload(device, [...gates, ...gates.map(() => 1)], [1, 16]);
      const ones = upload(device, new Array<number>(32).fill(1), [4, 8]);
      matmulVector(commands, { x, weight: ones, residual: null, out }, { rows, input: { kind: "swiglu" } });
    }, [out]);
    const wanted = gates.reduce((sum, gate) => sum + gate / (1 + Math.exp(-gate)), 0);
    assertClose(got!, [wanted, wanted, wanted, wanted], { relative: 1e-6, label: "out" });
  },
);

gpuTest("matmulVector refuses a norm of another width, and too deep a one", (device) => {
  const rows = caseRows(device, { count: 1, maximum: 1 });
  function record(depth: number, normWidth = depth): void {
    const [x, weight, out] = [blank(device, [1, depth]), blank(device, [1, depth]), blank(device, [1, 1])];
    const input = { kind: "normed", norm: blank(device, [normWidth]), eps } as const;
    matmulVector(new Commands(device, "test"), { x, weight, residual: null, out }, { rows, input });
  }
  record(8);
  assertThrows(() => record(8, 4), TypeError, "norm has shape (4), expected (8)");
  assertThrows(() => record(1_040_004), RangeError, "depth 1040004 is more than");
  return Promise.resolve();
});
