import { assertThrows } from "@std/assert";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { casePacking } from "../support/row_cases.ts";
import * as reference from "../reference/rope.ts";
import { Commands } from "../../gpu/commands.ts";
import { rope, ropeBackward, ropeTable } from "../../gpu/kernels/rope.ts";
import type { RopeScaling } from "../../model/config.ts";
import { ropeScales } from "../../model/rope_scaling.ts";

const theta = 10000;
/** One rounding of the table, two of the rotation. */
const relative = 3e-7;

interface Case {
  readonly name: string;
  readonly places: readonly number[];
  readonly count: number;
  readonly heads: number;
  readonly headDim: number;
  readonly stride: number;
  readonly scaling?: RopeScaling;
}

const cases: readonly Case[] = [
  { name: "tidy sizes", places: range(16), count: 16, heads: 4, headDim: 16, stride: 96 },
  {
    name: "gaps between positions",
    places: [0, 3, 4, 900, 32767],
    count: 5,
    heads: 3,
    headDim: 12,
    stride: 40,
  },
  {
    name: "scaled frequencies and an attention factor",
    places: [0, 1, 77, 5000, 32767],
    count: 5,
    heads: 2,
    headDim: 16,
    stride: 40,
    scaling: {
      kind: "yarn",
      factor: 8,
      originalMaxPositionEmbeddings: 4096,
      betaFast: 32,
      betaSlow: 1,
      truncate: true,
      attentionFactor: 1.2,
    },
  },
  { name: "one row and the smallest head", places: [1], count: 1, heads: 1, headDim: 4, stride: 4 },
  { name: "a dynamic count", places: range(20), count: 7, heads: 2, headDim: 8, stride: 24 },
  { name: "a dynamic count of zero", places: range(20), count: 0, heads: 2, headDim: 8, stride: 24 },
  { name: "70,000 rows", places: range(70000), count: 70000, heads: 1, headDim: 4, stride: 8 },
];

for (const { name, places, count, heads, headDim, stride, scaling = null } of cases) {
  gpuTest(`rope and its gradient match the reference with ${name}`, async (device) => {
    const values = createRandom(4).normals(places.length * stride);
    const packing = casePacking(device, { places, count });
    const scales = ropeScales({ headDim, ropeTheta: theta, ropeScaling: scaling });
    const table = ropeTable(device, { positions: places.at(-1)! + 1, headDim, theta, ...scales });
    const shape = [places.length, stride];
    const [x, gradient] = [upload(device, values, shape), upload(device, values, shape)];
    const [forward, backward] = await run(device, (commands) => {
      recordRows(commands, packing.rows);
      rope(commands, { x, packing, table }, { heads, headDim, stride });
      ropeBackward(commands, { x: gradient, packing, table }, { heads, headDim, stride });
    }, [x, gradient]);
    const turned = columns(values.subarray(0, count * stride), { stride, start: 0, end: heads * headDim });
    const positions = places.slice(0, count);
    const settings = { heads, headDim, theta, scaling };
    const both = [
      { label: "x", met: forward!, wanted: reference.rope({ x: turned, positions }, settings) },
      {
        label: "gradient",
        met: backward!,
        wanted: reference.ropeBackward({ gradOut: turned, positions }, settings),
      },
    ];
    for (const { label, met, wanted } of both) {
      const active = Float64Array.from(met.subarray(0, count * stride));
      assertClose(columns(active, { stride, start: 0, end: heads * headDim }), wanted, { relative, label });
      const rest = { stride, start: heads * headDim, end: stride };
      assertClose(columns(Float64Array.from(met), rest), columns(values, rest), {
        relative,
        label: `rest of ${label}`,
      });
      assertClose(met.subarray(count * stride), values.subarray(count * stride), {
        relative,
        label: `unused ${label}`,
      });
    }
  });
}

gpuTest("rope refuses heads that do not fit the row", (device) => {
  const commands = new Commands(device, "test");
  const packing = casePacking(device, { places: [0] });
  const table = ropeTable(device, { positions: 1, headDim: 8, theta });
  const x = blank(device, [1, 16]);
  assertThrows(
    () => rope(commands, { x, packing, table }, { heads: 3, headDim: 8, stride: 16 }),
    TypeError,
    "3 heads of 8 do not fit rows of 16",
  );
  return Promise.resolve();
});

gpuTest("ropeTable refuses divisors for another head size", (device) => {
  assertThrows(
    () => ropeTable(device, { positions: 1, headDim: 8, theta, divisors: [1, 2] }),
    TypeError,
    "2 divisors for 4 frequencies",
  );
  return Promise.resolve();
});

function range(length: number): number[] {
  return Array.from({ length }, (_, i) => i);
}

/** Columns [start, end) of a matrix whose rows have `stride` entries. */
function columns(
  matrix: Float64Array,
  { stride, start, end }: { stride: number; start: number; end: number },
): Float64Array {
  return matrix.filter((_, i) => i % stride >= start && i % stride < end);
}
