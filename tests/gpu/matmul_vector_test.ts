import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import {
  canMultiplyVectors,
  matmulVector,
  VECTOR_VARIANTS,
  type VectorVariantName,
} from "../../gpu/kernels/matmul_vector.ts";
import * as reference from "../reference/linear.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { tuned } from "../support/hardware.ts";
import { recordRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { caseRows, writtenPart } from "../support/row_cases.ts";

interface VectorCase {
  readonly count: number;
  readonly maximum: number;
  readonly columns: number;
  readonly depth: number;
}

const cases: Readonly<Record<string, VectorCase>> = {
  "tidy sizes": { count: 4, maximum: 4, columns: 64, depth: 128 },
  "odd sizes": { count: 7, maximum: 7, columns: 37, depth: 20 },
  "one row": { count: 1, maximum: 1, columns: 1, depth: 4 },
  "two rows": { count: 2, maximum: 2, columns: 33, depth: 60 },
  "16 rows": { count: 16, maximum: 16, columns: 50, depth: 292 },
  "a dynamic count": { count: 5, maximum: 16, columns: 24, depth: 36 },
  "a dynamic count of zero": { count: 0, maximum: 16, columns: 24, depth: 36 },
  "70,000 columns": { count: 3, maximum: 3, columns: 70_000, depth: 4 },
  "a depth of 264,004": { count: 3, maximum: 3, columns: 9, depth: 264_004 },
};

interface Inputs {
  readonly x: Float64Array;
  readonly weight: Float64Array;
  readonly residual: Float64Array | null;
}

/** The product by the GPU; rows of x past the count are NaN, because nothing may come of them. */
async function multiply(
  device: GpuDevice,
  { x, weight, residual, count, maximum, columns, depth }: Inputs & VectorCase,
): Promise<number[]> {
  const rows = caseRows(device, { count, maximum });
  const out = blank(device, [maximum, columns]);
  const padded = new Float64Array(maximum * depth).fill(NaN);
  padded.set(x);
  const [got] = await run(device, (commands) => {
    recordRows(commands, rows);
    matmulVector(commands, {
      x: upload(device, padded, [maximum, depth]),
      weight: upload(device, weight, [columns, depth]),
      residual: residual && upload(device, residual, [maximum, columns]),
      out,
    }, { rows });
  }, [out]);
  return writtenPart(got!, count * columns);
}

/** The deepest sums, which still fit into what any adapter binds; more lanes reach further than that. */
const deepest: Readonly<Partial<Record<VectorVariantName, number>>> = {
  subgroup: 2_080_000,
  lanes_16: 4_160_000,
  lanes_32: 8_320_000,
};

for (const variant of Object.keys(VECTOR_VARIANTS) as VectorVariantName[]) {
  const choose = (device: GpuDevice): GpuDevice => tuned(device, { matmulVector: variant });
  // Shuffles between eight lanes are what the subgroup variant is made of; no adapter without them ever runs it.
  const vectorTest = (name: string, body: (device: GpuDevice) => Promise<void>): void =>
    gpuTest(`${name}, ${variant} variant`, async (device) => {
      if (canMultiplyVectors(device, variant)) await body(device);
    });

  for (const [name, vectorCase] of Object.entries(cases)) {
    vectorTest(`matmulVector matches the reference with ${name}`, async (device) => {
      const { count, columns, depth } = vectorCase;
      const random = createRandom(5);
      const x = random.normals(count * depth);
      const weight = random.normals(columns * depth);
      const got = await multiply(choose(device), { ...vectorCase, x, weight, residual: null });
      const wanted = reference.linear({ x, weight }, { inFeatures: depth, outFeatures: columns });
      // Rounding of one chain of additions; the longest is that of the software variant.
      assertClose(got, wanted, { relative: depth > 1000 ? 2e-5 : 2e-6, label: "out" });
    });
  }

  const depth = deepest[variant];
  if (depth !== undefined) {
    vectorTest("matmulVector reaches the end of the deepest sum", async (device) => {
      const ones = new Float64Array(depth).fill(1);
      const sizes = { count: 1, maximum: 1, columns: 1, depth };
      assertEquals(await multiply(choose(device), { ...sizes, x: ones, weight: ones, residual: null }), [
        depth,
      ]);
    });
  }

  vectorTest("matmulVector gives a row the same bits in any company", async (device) => {
    const random = createRandom(6);
    const sizes = { columns: 41, depth: 300 };
    const own = random.normals(sizes.depth);
    const weight = random.normals(sizes.columns * sizes.depth);
    const counts = [[1, 1], [2, 2], [3, 3], [4, 4], [6, 6], [16, 16], [1, 16], [7, 16]] as const;
    let alone: number[] | null = null;
    for (const [count, maximum] of counts) {
      const x = random.normals(count * sizes.depth, 100);
      x.set(own, (count - 1) * sizes.depth);
      const inputs = { ...sizes, count, maximum, x, weight, residual: null };
      const last = (await multiply(choose(device), inputs)).slice(-sizes.columns);
      alone ??= last;
      assertEquals(last, alone, `${count} of ${maximum} rows`);
    }
  });

  vectorTest("matmulVector adds a residual to the same product", async (device) => {
    const random = createRandom(7);
    const sizes = { count: 3, maximum: 6, columns: 21, depth: 44 };
    const x = random.normals(sizes.count * sizes.depth);
    const weight = random.normals(sizes.columns * sizes.depth);
    const residual = random.normals(sizes.maximum * sizes.columns);
    const product = await multiply(choose(device), { ...sizes, x, weight, residual: null });
    const got = await multiply(choose(device), { ...sizes, x, weight, residual });
    assertEquals(got, product.map((value, i) => Math.fround(Math.fround(residual[i]!) + value)));
  });
}

gpuTest("matmulVector refuses shapes that do not fit", (device) => {
  const commands = new Commands(device, "test");
  const rows = caseRows(device, { count: 1, maximum: 1 });
  const record = ({ depth, residual }: { depth: number; residual?: number }, to = commands): void => {
    matmulVector(to, {
      x: blank(device, [1, depth]),
      weight: blank(device, [1, depth]),
      residual: residual === undefined ? null : blank(device, [1, residual]),
      out: blank(device, [1, 1]),
    }, { rows });
  };
  record({ depth: 8, residual: 1 });
  assertThrows(() => record({ depth: 6 }), TypeError, "depth 6 is not a multiple of 4");
  assertThrows(
    () => record({ depth: 8, residual: 2 }),
    TypeError,
    "residual has shape (1,2), expected (1,1)",
  );
  const limit = 4 * 16 * 65_000;
  const few = new Commands(tuned(device, { matmulVector: "lanes_16" }), "test");
  assertThrows(
    () => record({ depth: limit + 4 }, few),
    RangeError,
    `depth ${limit + 4} is more than ${limit}`,
  );
  return Promise.resolve();
});
