/** Matrix products whose variants are compared. */
import type { GpuDevice } from "../device.ts";
import { linear, linearBackwardWeight } from "../kernels/linear.ts";
import { canMultiply } from "../kernels/matmul.ts";
import { canMultiplyVectors } from "../kernels/matmul_vector.ts";
import type { Allocator } from "../memory.ts";
import type { Matrix } from "../packed_matrix.ts";
import { staticRows } from "../rows.ts";
import { createTensor } from "../tensor.ts";
import { candidatesOf, type PreparedWork, type TuningCase } from "./cases.ts";
import { randomPacked, randomTensor } from "./random_tensors.ts";
import { defaultTuning, type Tuning, type VectorRows } from "./tuning.ts";

/** Rows, columns and depth of a product. */
type ProductSize = readonly [rows: number, columns: number, depth: number];

/** Sizes of products, of which very few rows are multiplied by a weight that is long to read. */
const SIZES = {
  software: {
    matmul: [256, 256, 256],
    matmulFewRows: [64, 512, 256],
    matmulGradient: [256, 256, 256],
    matmulVector: [1, 1024, 512],
    vectorRows: [1, 512, 256],
  },
  hardware: {
    matmul: [2048, 2048, 1024],
    matmulFewRows: [64, 1024, 1024],
    matmulGradient: [1024, 1024, 2048],
    matmulVector: [1, 2048, 1024],
    vectorRows: [1, 2048, 1024],
  },
} as const satisfies Readonly<Record<string, Readonly<Record<string, ProductSize>>>>;

function sizeOf(device: GpuDevice, work: keyof typeof SIZES.software, rows?: number): ProductSize {
  const [usual, columns, depth] = SIZES[device.info.isSoftware ? "software" : "hardware"][work];
  return [rows ?? usual, columns, depth];
}

function productWork([rows, columns, depth]: ProductSize): string {
  return `${rows} x ${depth} by ${depth} x ${columns}`;
}

/** Tiles for processors, which have no registers for large ones, and for hardware. */
const PRODUCTS = {
  software: ["subgroup", "tile_32x32", "tile_64x64"],
  hardware: ["tile_32x32", "tile_64x64", "tile_128x64", "tile_128x128"],
} as const;

/** Products of many rows and of few, gradients, and products of one row with f32 and with packed weights. */
export function productCases(device: GpuDevice): TuningCase[] {
  return [
    forwardCase(device, "matmul"),
    forwardCase(device, "matmulFewRows"),
    gradientCase(device),
    vectorCase(device),
    panelCase(device),
  ];
}

/**
 * Whether so many rows are still faster by the kernel of very few, one step above the `below` rows that are: candidates
 * are the two values of `vectorRows` that decide for one kernel and the other.
 */
export function vectorRowsCase(
  device: GpuDevice,
  { rows, below }: { rows: VectorRows; below: VectorRows },
): TuningCase {
  const size = sizeOf(device, "vectorRows", rows);
  return {
    choice: "vectorRows",
    work: productWork(size),
    candidates: rows <= defaultTuning(device).vectorRows ? [rows, below] : [below, rows],
    prepare: (scope) => linearWork(scope, { size }),
  };
}

/** The forward product of a linear layer. */
function linearWork(
  scope: Allocator,
  { size: [count, columns, depth], weight }: { size: ProductSize; weight?: Matrix },
): PreparedWork {
  const rows = staticRows(scope, count);
  const x = randomTensor(scope, [count, depth], 1);
  const w = weight ?? randomTensor(scope, [columns, depth], 2);
  const out = createTensor(scope, { shape: [count, columns], label: "product" });
  return {
    record: (commands) => linear(commands, { x, weight: w, out }, { rows }),
    outputs: [out],
    flops: 2 * count * columns * depth,
  };
}

function forwardCase(device: GpuDevice, choice: "matmul" | "matmulFewRows"): TuningCase {
  const size = sizeOf(device, choice);
  const canRun = (name: Tuning["matmul"]): boolean => canMultiply(device, name);
  return {
    choice,
    work: productWork(size),
    candidates: candidatesOf(device, { choice, ...PRODUCTS, canRun }),
    prepare: (scope) => linearWork(scope, { size }),
  };
}

function gradientCase(device: GpuDevice): TuningCase {
  const [outputs, inputs, count] = sizeOf(device, "matmulGradient");
  const canRun = (name: Tuning["matmulGradient"]): boolean => canMultiply(device, name);
  return {
    choice: "matmulGradient",
    work: productWork([outputs, inputs, count]),
    candidates: candidatesOf(device, { choice: "matmulGradient", ...PRODUCTS, canRun }),
    prepare: (scope) => {
      const rows = staticRows(scope, count);
      const gradOut = randomTensor(scope, [count, outputs], 1);
      const x = randomTensor(scope, [count, inputs], 2);
      const gradWeight = createTensor(scope, { shape: [outputs, inputs], label: "gradient" });
      return {
        record: (commands) => linearBackwardWeight(commands, { gradOut, x, gradWeight }, { rows }),
        outputs: [gradWeight],
        flops: 2 * outputs * inputs * count,
      };
    },
  };
}

function vectorCase(device: GpuDevice): TuningCase {
  const size = sizeOf(device, "matmulVector");
  return {
    choice: "matmulVector",
    work: productWork(size),
    candidates: candidatesOf(device, {
      choice: "matmulVector",
      software: ["subgroup", "lanes_32"],
      hardware: ["lanes_16", "lanes_32", "lanes_64", "lanes_128"],
      canRun: (name) => canMultiplyVectors(device, name),
    }),
    prepare: (scope) => linearWork(scope, { size }),
  };
}

function panelCase(device: GpuDevice): TuningCase {
  const size = sizeOf(device, "matmulVector");
  return {
    choice: "matmulPanel",
    work: `${productWork(size)} as q8_0`,
    candidates: candidatesOf(device, {
      choice: "matmulPanel",
      software: ["subgroup", "slices_4"],
      hardware: ["slices_2", "slices_4", "slices_8"],
      canRun: (name) => canMultiplyVectors(device, name),
    }),
    prepare: (scope) => linearWork(scope, { size, weight: randomPacked(scope, [size[1], size[2]]) }),
  };
}
