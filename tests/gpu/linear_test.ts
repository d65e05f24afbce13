import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import { linear, linearAdd, linearBackwardInput, linearBackwardWeight } from "../../gpu/kernels/linear.ts";
import { viewRows } from "../../gpu/packed_matrix.ts";
import { staticRows } from "../../gpu/rows.ts";
import * as reference from "../reference/linear.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { caseRows, manyRows, type RowCase, rowCases, writtenPart } from "../support/row_cases.ts";

const outFeatures = 24;

/** Row counts on both sides of those that the kernel for few rows takes. */
const fewRowCases: readonly RowCase[] = [
  { name: "16 rows", count: 16, maximum: 16, dim: 20 },
  { name: "17 rows", count: 17, maximum: 17, dim: 20 },
  { name: "a dynamic count of few rows", count: 3, maximum: 16, dim: 36 },
  { name: "a dynamic count of no rows of few", count: 0, maximum: 16, dim: 36 },
];

for (const rowCase of [...rowCases, ...fewRowCases, manyRows]) {
  for (const shapes of ["software", "hardware"] as const) {
    const { name, count, maximum, dim } = rowCase;
    gpuTest(
      `linear and its gradients match the reference with ${name}, ${shapes} variant`,
      async (opened) => {
        const device = shapes === "hardware" ? asHardware(opened) : opened;
        const random = createRandom(12);
        const x = random.normals(maximum * dim);
        const gradOut = random.normals(maximum * outFeatures);
        const weight = random.normals(outFeatures * dim);
        const rows = caseRows(device, rowCase);
        const tensors = {
          x: upload(device, x, [maximum, dim]),
          gradOut: upload(device, gradOut, [maximum, outFeatures]),
          weight: upload(device, weight, [outFeatures, dim]),
        };
        const out = blank(device, [maximum, outFeatures]);
        const gradX = blank(device, [maximum, dim]);
        const gradWeight = blank(device, [outFeatures, dim], 0.25);
        const [gotOut, gotGradX, gotGradWeight] = await run(device, (commands) => {
          recordRows(commands, rows);
          linear(commands, { ...tensors, out }, { rows });
          linearBackwardInput(commands, { ...tensors, gradX }, { rows });
          linearBackwardWeight(commands, { ...tensors, gradWeight }, { rows });
        }, [out, gradX, gradWeight]);

        const used = {
          x: x.subarray(0, count * dim),
          gradOut: gradOut.subarray(0, count * outFeatures),
          weight,
        };
        const sizes = { inFeatures: dim, outFeatures };
        // Rounding of sums of up to 64 products, and of 70,000 for the weight's gradient.
        const relative = 2e-6;
        const wantedOut = reference.linear(used, sizes);
        assertClose(writtenPart(gotOut!, wantedOut.length), wantedOut, { relative, label: "out" });
        const wantedGradX = reference.linearInputGradient(used, sizes);
        assertClose(writtenPart(gotGradX!, wantedGradX.length), wantedGradX, { relative, label: "gradX" });
        const added = reference.linearWeightGradient(used, sizes).map((value) => value + 0.25);
        assertClose(gotGradWeight!, added, { relative: count > 1000 ? 2e-5 : relative, label: "gradWeight" });
      },
    );
  }
}

for (const rowCase of [...rowCases, ...fewRowCases]) {
  gpuTest(`linearAdd adds what linear makes with ${rowCase.name}`, async (device) => {
    const { count, maximum, dim } = rowCase;
    const random = createRandom(13);
    const residual = random.normals(maximum * outFeatures);
    const rows = caseRows(device, rowCase);
    const tensors = {
      x: upload(device, random.normals(maximum * dim), [maximum, dim]),
      weight: upload(device, random.normals(outFeatures * dim), [outFeatures, dim]),
    };
    const [product, out] = Array.from({ length: 2 }, () => blank(device, [maximum, outFeatures]));
    const [gotProduct, gotOut] = await run(device, (commands) => {
      recordRows(commands, rows);
      linear(commands, { ...tensors, out: product! }, { rows });
      const added = { residual: upload(device, residual, [maximum, outFeatures]), out: out! };
      linearAdd(commands, { ...tensors, ...added }, { rows });
    }, [product!, out!]);
    const size = count * outFeatures;
    const wanted = writtenPart(gotProduct!, size).map((value, i) => Math.fround(residual[i]!) + value);
    assertEquals(writtenPart(gotOut!, size), wanted.map(Math.fround));
  });
}

/** Rows of which some are fewer than the kernel for few rows takes, and rows that it takes all. */
const parts: readonly (readonly number[])[] = [[64, 1], [16, 16, 8], [16, 1], [20, 20], [4, 4, 3]];

for (const counts of parts) {
  for (const shapes of ["software", "hardware"] as const) {
    const title = `linear gives ${counts.join(" + ")} rows the bits that all of them get at once`;
    gpuTest(`${title}, ${shapes} variant`, async (opened) => {
      const device = shapes === "hardware" ? asHardware(opened) : opened;
      const random = createRandom(14);
      const [total, depth] = [counts.reduce((sum, count) => sum + count, 0), 512];
      const x = upload(device, random.normals(total * depth), [total, depth]);
      const weight = upload(device, random.normals(outFeatures * depth), [outFeatures, depth]);
      const whole = blank(device, [total, outFeatures]);
      const cut = counts.map((count) => blank(device, [count, outFeatures]));
      const [wanted, ...met] = await run(device, (commands) => {
        linear(commands, { x, weight, out: whole }, { rows: staticRows(device, total) });
        let start = 0;
        counts.forEach((count, i) => {
          const part = viewRows(x, { start, count });
          linear(commands, { x: part, weight, out: cut[i]! }, {
            rows: staticRows(device, count),
            partOf: total,
          });
          start += count;
        });
      }, [whole, ...cut]);
      assertEquals(met.flatMap((values) => [...values]), [...wanted!]);
    });
  }
}

gpuTest("linear, linearAdd and the gradients refuse other shapes by the tensor's name", (device) => {
  const commands = new Commands(device, "test");
  const rows = caseRows(device, { count: 3, maximum: 3 });
  const wide = blank(device, [3, 12]);
  const narrow = blank(device, [3, 8]);
  const weight = blank(device, [8, 12]);
  const refused: Record<string, () => void> = {
    "linear: x has shape (3,8), expected (3,12)": () =>
      linear(commands, { x: narrow, weight, out: narrow }, { rows }),
    "linear: out has shape (3,12), expected (3,8)": () =>
      linear(commands, { x: wide, weight, out: wide }, { rows }),
    "linearAdd: residual has shape (3,12), expected (3,8)": () =>
      linearAdd(commands, { x: wide, weight, residual: wide, out: narrow }, { rows }),
    "linearAdd: out has shape (3,12), expected (3,8)": () =>
      linearAdd(commands, { x: wide, weight, residual: narrow, out: wide }, { rows }),
    "linearBackwardInput: gradOut": () =>
      linearBackwardInput(commands, { gradOut: wide, weight, gradX: wide }, { rows }),
    "linearBackwardInput: gradX": () =>
      linearBackwardInput(commands, { gradOut: narrow, weight, gradX: narrow }, { rows }),
    "linearBackwardWeight: gradOut": () =>
      linearBackwardWeight(commands, { gradOut: wide, x: wide, gradWeight: weight }, { rows }),
    "linearBackwardWeight: x": () =>
      linearBackwardWeight(commands, { gradOut: narrow, x: narrow, gradWeight: weight }, { rows }),
  };
  for (const [message, call] of Object.entries(refused)) assertThrows(call, TypeError, message);
  return Promise.resolve();
});
