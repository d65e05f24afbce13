import { assertEquals, assertThrows } from "@std/assert";
import {
  canMultiply,
  matmul,
  MATMUL_VARIANTS,
  type MatmulSettings,
  type MatmulVariantName,
} from "../../gpu/kernels/matmul.ts";
import { Commands } from "../../gpu/commands.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import * as reference from "../reference/linear.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { caseRows } from "../support/row_cases.ts";

/** A linear map of `count` rows, in buffers for `maximum`: the three products that it needs. */
interface Case {
  readonly name: string;
  readonly count: number;
  readonly maximum: number;
  readonly inFeatures: number;
  readonly outFeatures: number;
  readonly relative?: number;
}

const cases: readonly Case[] = [
  { name: "whole tiles", count: 256, maximum: 256, inFeatures: 128, outFeatures: 128 },
  { name: "one row", count: 1, maximum: 1, inFeatures: 300, outFeatures: 4 },
  { name: "seven rows", count: 7, maximum: 7, inFeatures: 4, outFeatures: 20 },
  { name: "33 rows", count: 33, maximum: 33, inFeatures: 300, outFeatures: 20 },
  { name: "45 rows and 260 outputs", count: 45, maximum: 45, inFeatures: 4, outFeatures: 260 },
  { name: "a dynamic count", count: 70, maximum: 150, inFeatures: 20, outFeatures: 36 },
  { name: "a dynamic count of zero", count: 0, maximum: 29, inFeatures: 12, outFeatures: 8 },
  // Sums of 70,000 products: float32 keeps five digits of them.
  { name: "70,000 rows", count: 70_000, maximum: 70_000, inFeatures: 4, outFeatures: 4, relative: 2e-5 },
  { name: "70,000 inputs", count: 3, maximum: 3, inFeatures: 70_000, outFeatures: 4, relative: 2e-5 },
  { name: "70,000 outputs", count: 3, maximum: 3, inFeatures: 4, outFeatures: 70_000, relative: 2e-5 },
];

const variants = Object.keys(MATMUL_VARIANTS) as MatmulVariantName[];

/** `used` values, then NaN up to `size`: what lies past a count must not matter. */
function padded(used: Float64Array, size: number): Float64Array {
  const all = new Float64Array(size).fill(NaN);
  all.set(used);
  return all;
}

for (const variant of variants) {
  for (const { name, count, maximum, inFeatures, outFeatures, relative = 2e-6 } of cases) {
    gpuTest(`matmul ${variant} matches the reference in three layouts with ${name}`, async (device) => {
      if (!canMultiply(device, variant)) return;
      const random = createRandom(11);
      const sizes = { inFeatures, outFeatures };
      const x = random.normals(count * inFeatures);
      const gradOut = random.normals(count * outFeatures);
      const weight = random.normals(outFeatures * inFeatures);
      const rows = caseRows(device, { count, maximum });
      const inputs = {
        x: upload(device, padded(x, maximum * inFeatures)),
        gradOut: upload(device, padded(gradOut, maximum * outFeatures)),
        weight: upload(device, weight),
      };
      const out = blank(device, [maximum, outFeatures]);
      const gradX = blank(device, [maximum, inFeatures], 0.5);
      const gradWeight = blank(device, [outFeatures, inFeatures], 0.25);
      const shared = { variant: MATMUL_VARIANTS[variant] };
      const byRows = { ...shared, rows: maximum, counted: { dimension: "rows", rows } } as const;
      const results = await run(device, (commands) => {
        recordRows(commands, rows);
        matmul(commands, { a: inputs.x, b: inputs.weight, out }, {
          ...byRows,
          columns: outFeatures,
          depth: inFeatures,
        });
        matmul(commands, { a: inputs.gradOut, b: inputs.weight, out: gradX }, {
          ...byRows,
          columns: inFeatures,
          depth: outFeatures,
          bDepthFirst: true,
          accumulate: true,
        });
        matmul(commands, { a: inputs.gradOut, b: inputs.x, out: gradWeight }, {
          ...shared,
          rows: outFeatures,
          columns: inFeatures,
          depth: maximum,
          aDepthFirst: true,
          bDepthFirst: true,
          accumulate: true,
          counted: { dimension: "depth", rows },
        });
      }, [out, gradX, gradWeight]);
      const [gotOut, gotGradX, gotGradWeight] = results.map((data) => Array.from(data));

      const written = gotOut!.slice(0, count * outFeatures);
      assertClose(written, reference.linear({ x, weight }, sizes), { relative, label: "out" });
      assertEquals(
        gotOut!.slice(written.length).every(Number.isNaN),
        true,
        "rows past the count were written",
      );
      const spare = new Float64Array((maximum - count) * inFeatures);
      const wantedGradX = [...reference.linearInputGradient({ gradOut, weight }, sizes), ...spare];
      assertClose(gotGradX!, wantedGradX.map((value) => value + 0.5), { relative, label: "gradX" });
      const wantedGradWeight = reference.linearWeightGradient({ gradOut, x }, sizes);
      assertClose(gotGradWeight!, wantedGradWeight.map((value) => value + 0.25), {
        relative,
        label: "gradWeight",
      });
    });
  }
}

gpuTest("matmul splits a sum that one invocation cannot loop over", (device) => {
  const rows = caseRows(device, { count: 4, maximum: 4 });
  const dispatches = (variant: MatmulVariantName): number => {
    const commands = new Commands(device, "test");
    const tensors = {
      a: upload(device, new Float32Array(280_000)),
      b: upload(device, new Float32Array(280_000)),
    };
    matmul(commands, { ...tensors, out: blank(device, [4, 4]) }, {
      rows: 4,
      columns: 4,
      depth: 70_000,
      counted: { dimension: "rows", rows },
      variant: MATMUL_VARIANTS[variant],
    });
    return commands.steps.length;
  };
  // A tiled turn of 16 depths runs two inner loops; a subgroup turn covers 4 depths and runs none.
  assertEquals(dispatches("tile_64x64"), 2);
  if (canMultiply(device, "subgroup")) assertEquals(dispatches("subgroup"), 1);
  return Promise.resolve();
});

const refused: Record<string, Pick<MatmulSettings, "rows" | "columns" | "depth" | "aDepthFirst">> = {
  "columns": { rows: 4, columns: 6, depth: 4 },
  "contiguous depth": { rows: 4, columns: 4, depth: 7 },
  "contiguous rows": { rows: 5, columns: 4, depth: 4, aDepthFirst: true },
};

for (const [name, sizes] of Object.entries(refused)) {
  gpuTest(`matmul refuses other than multiples of 4 as ${name}`, (device) => {
    const commands = new Commands(device, "test");
    const tensor: Tensor = upload(device, new Float32Array(64));
    const rows = caseRows(device, { count: sizes.rows, maximum: sizes.rows });
    assertThrows(
      () =>
        matmul(commands, { a: tensor, b: tensor, out: blank(device, [64]) }, {
          ...sizes,
          counted: { dimension: "rows", rows },
        }),
      TypeError,
      "not in multiples of 4",
    );
    return Promise.resolve();
  });
}
