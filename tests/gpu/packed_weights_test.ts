/** Products and lookups that read f16, q8_0 and q4_0 weights, against the same numbers unpacked, in float64. */
import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { embedding } from "../../gpu/kernels/embedding.ts";
import {
  linear,
  linearAdd,
  linearBackwardInput,
  normLinear,
  swigluLinearAdd,
} from "../../gpu/kernels/linear.ts";
import { createPackedMatrix, PACKED_FORMATS, viewRows } from "../../gpu/packed_matrix.ts";
import { staticRows } from "../../gpu/rows.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import * as reference from "../reference/linear.ts";
import { rmsNorm } from "../reference/rms_norm.ts";
import { swiglu } from "../reference/swiglu.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { asHardware, tuned } from "../support/hardware.ts";
import { uploadPacked } from "../support/packed.ts";
import { recordRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { caseRows, writtenPart } from "../support/row_cases.ts";

/** Rounding of long sums in f32; the rounding of the weights is on both sides. */
const relative = 3e-6;

/** Depths of 1, 3, 9 and 18 blocks: rows whose scales fill a vec4 in part, or two and some. */
const cases = [
  { name: "one row of one block", count: 1, maximum: 1, columns: 1, depth: 32 },
  { name: "one row", count: 1, maximum: 1, columns: 70, depth: 288 },
  { name: "three rows", count: 3, maximum: 3, columns: 37, depth: 96 },
  { name: "16 rows", count: 16, maximum: 16, columns: 33, depth: 576 },
  { name: "17 rows", count: 17, maximum: 17, columns: 68, depth: 288 },
  { name: "130 rows", count: 130, maximum: 130, columns: 132, depth: 96 },
  { name: "a dynamic count of few", count: 5, maximum: 12, columns: 36, depth: 64 },
  { name: "a dynamic count of many", count: 21, maximum: 80, columns: 36, depth: 64 },
  { name: "a dynamic count of zero", count: 0, maximum: 80, columns: 36, depth: 64 },
] as const;

/** One row as deep as it may be; some, whose product goes over windows of the depth. */
const deepCases = {
  software: [{ count: 1, depth: 2_080_000 }, { count: 20, depth: 60_000 }],
  hardware: [{ count: 1, depth: 519_968 }, { count: 20, depth: 60_000 }],
  "two slices": [{ count: 1, depth: 260_000 }],
  "eight slices": [{ count: 1, depth: 1_040_000 }],
} as const;

/** The adapter as it is, as hardware, and with the choices that hardware may be tuned to. */
const devices: Readonly<Record<keyof typeof deepCases, (device: GpuDevice) => GpuDevice>> = {
  software: (device) => device,
  hardware: asHardware,
  "two slices": (device) => tuned(asHardware(device), { matmulPanel: "slices_2" }),
  "eight slices": (device) => tuned(asHardware(device), { matmulPanel: "slices_8" }),
};

/** More rows than the kernels of few rows take have the same product whatever the slices. */
function casesOf(shapes: keyof typeof devices): readonly (typeof cases)[number][] {
  return shapes.endsWith("slices") ? cases.filter(({ maximum }) => maximum <= 16) : cases;
}

for (const format of PACKED_FORMATS) {
  for (const shapes of Object.keys(devices) as (keyof typeof devices)[]) {
    const choose = devices[shapes];

    for (const { name, count, maximum, columns, depth } of casesOf(shapes)) {
      gpuTest(`linear multiplies by ${format} weights with ${name}, ${shapes} variant`, async (opened) => {
        const device = choose(opened);
        const random = createRandom(71);
        const x = random.normals(count * depth);
        const { matrix, numbers } = uploadPacked(device, random.normals(columns * depth), {
          format,
          shape: [columns, depth],
        });
        const padded = new Float64Array(maximum * depth).fill(NaN);
        padded.set(x);
        const out = blank(device, [maximum, columns]);
        const rows = caseRows(device, { count, maximum });
        const [got] = await run(device, (commands) => {
          recordRows(commands, rows);
          linear(commands, { x: upload(device, padded, [maximum, depth]), weight: matrix, out }, { rows });
        }, [out]);
        const wanted = reference.linear({ x, weight: numbers }, { inFeatures: depth, outFeatures: columns });
        assertClose(writtenPart(got!, count * columns), wanted, { relative, label: "out" });
      });
    }

    for (const { count, depth } of deepCases[shapes]) {
      gpuTest(
        `${count} rows reach the end of a sum of ${depth} ${format} weights, ${shapes} variant`,
        async (opened) => {
          const device = choose(opened);
          // One of them is exact in every format.
          const value = format === "q8_0" ? 127 : 1;
          const { matrix } = uploadPacked(device, new Float32Array(4 * depth).fill(value), {
            format,
            shape: [4, depth],
          });
          const out = blank(device, [count, 4]);
          const x = upload(device, new Float32Array(count * depth).fill(1), [count, depth]);
          const rows = staticRows(device, count);
          const [got] = await run(device, (commands) => {
            linear(commands, { x, weight: matrix, out }, { rows });
          }, [out]);
          assertClose(got!, new Float64Array(4 * count).fill(value * depth), {
            relative: 1e-5,
            label: "sums",
          });
        },
      );
    }

    gpuTest(`a row has the same bits in any company, ${format}, ${shapes} variant`, async (opened) => {
      const device = choose(opened);
      const random = createRandom(72);
      const [columns, depth] = [40, 160];
      const x = random.normals(16 * depth);
      const { matrix } = uploadPacked(device, random.normals(columns * depth), {
        format,
        shape: [columns, depth],
      });
      const products: number[][] = [];
      for (const maximum of [1, 2, 3, 16]) {
        const out = blank(device, [maximum, columns]);
        const input = upload(device, x.subarray(0, maximum * depth), [maximum, depth]);
        const rows = staticRows(device, maximum);
        const [got] = await run(device, (commands) => {
          linear(commands, { x: input, weight: matrix, out }, { rows });
        }, [out]);
        products.push(Array.from(got!.subarray(0, columns)));
      }
      for (const product of products) assertEquals(product, products[0]);
    });

    for (const count of shapes.endsWith("slices") ? [2] : [2, 20]) {
      gpuTest(
        `norms, SwiGLU and residuals join ${format} products of ${count} rows, ${shapes} variant`,
        async (opened) => {
          const device = choose(opened);
          const random = createRandom(73);
          const [columns, depth] = [36, 96];
          const sizes = { inFeatures: depth, outFeatures: columns };
          const [x, norm] = [random.normals(count * depth), random.normals(depth)];
          const [gateUp, residual] = [random.normals(count * 2 * depth), random.normals(count * columns)];
          const { matrix: weight, numbers } = uploadPacked(device, random.normals(columns * depth), {
            format,
            shape: [columns, depth],
          });
          const rows = staticRows(device, count);
          const [normed, sum, activated] = [0, 1, 2].map(() => blank(device, [count, columns])) as [
            Tensor,
            Tensor,
            Tensor,
          ];
          const wide = blank(device, [count, depth]);
          const added = upload(device, residual, [count, columns]);
          const [gotNormed, gotSum, gotActivated] = await run(device, (commands) => {
            const input = upload(device, x, [count, depth]);
            normLinear(commands, {
              x: input,
              norm: upload(device, norm, [depth]),
              weight,
              out: normed,
              normed: wide,
              rrms: blank(device, [count]),
            }, { rows, eps: 1e-5, keeps: false });
            linearAdd(commands, { x: input, weight, residual: added, out: sum }, { rows });
            swigluLinearAdd(commands, {
              gateUp: upload(device, gateUp, [count, 2 * depth]),
              weight,
              residual: added,
              out: activated,
              activated: wide,
            }, { rows, keeps: false });
          }, [normed, sum, activated]);
          const product = (input: Float64Array): Float64Array =>
            reference.linear({ x: input, weight: numbers }, sizes);
          const plus = (values: Float64Array): Float64Array => values.map((value, i) => value + residual[i]!);
          const { out: normedX } = rmsNorm({ x, weight: norm }, { eps: 1e-5 });
          assertClose(gotNormed!, product(normedX), { relative, label: "normed product" });
          assertClose(gotSum!, plus(product(x)), { relative, label: "sum" });
          const activatedX = swiglu({ gateUp }, { intermediateSize: depth });
          assertClose(gotActivated!, plus(product(activatedX)), { relative, label: "SwiGLU product" });
        },
      );
    }
  }

  gpuTest(`embedding looks up ${format} rows`, async (device) => {
    const random = createRandom(74);
    const [vocabulary, dim] = [50, 288];
    const { matrix, numbers } = uploadPacked(device, random.normals(vocabulary * dim), {
      format,
      shape: [vocabulary, dim],
    });
    const ids = [49, 0, 7, 7, 31];
    for (const [count, maximum] of [[5, 5], [2, 5], [0, 5]] as const) {
      const out = blank(device, [maximum, dim]);
      const rows = caseRows(device, { count, maximum });
      const [got] = await run(device, (commands) => {
        recordRows(commands, rows);
        embedding(commands, { ids: uploadIndices(device, ids), weight: matrix, out }, { rows });
      }, [out]);
      const wanted = ids.slice(0, count).flatMap((id) =>
        Array.from(numbers.subarray(id * dim, (id + 1) * dim))
      );
      assertClose(writtenPart(got!, count * dim), wanted, { relative: 1e-7, label: "rows" });
    }
  });

  gpuTest(`some rows of a ${format} matrix are a matrix`, async (device) => {
    const random = createRandom(75);
    const depth = 96;
    const { matrix, numbers } = uploadPacked(device, random.normals(192 * depth), {
      format,
      shape: [192, depth],
    });
    const x = random.normals(depth);
    const out = blank(device, [1, 40]);
    const rows = staticRows(device, 1);
    const part = viewRows(matrix, { start: 128, count: 40 });
    const [got] = await run(device, (commands) => {
      linear(commands, { x: upload(device, x, [1, depth]), weight: part, out }, { rows });
    }, [out]);
    const weight = numbers.subarray(128 * depth, 168 * depth);
    const wanted = reference.linear({ x, weight }, { inFeatures: depth, outFeatures: 40 });
    assertClose(got!, wanted, { relative, label: "out" });
  });
}

gpuTest("packed weights refuse rows that are not whole blocks, and a backward pass", (device) => {
  for (const format of PACKED_FORMATS) {
    const shape = [32, 48] as const;
    assertThrows(
      () => createPackedMatrix(device, { format, shape, label: "odd" }),
      TypeError,
      `Cannot pack rows of 48 numbers as ${format}`,
    );
  }
  const weight = createPackedMatrix(device, { format: "q8_0", shape: [32, 32], label: "frozen" });
  const tensors = { gradOut: blank(device, [20, 32]), weight, gradX: blank(device, [20, 32]) };
  const rows = staticRows(device, 20);
  assertThrows(
    () => linearBackwardInput(new Commands(device, "test"), tensors, { rows }),
    TypeError,
    "frozen is packed along the depth",
  );
  return Promise.resolve();
});
