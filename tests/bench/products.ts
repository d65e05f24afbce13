/** Speed of matrix products. */
import { Commands, submit } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { matmul } from "../../gpu/kernels/matmul.ts";
import { readTensor } from "../../gpu/readback.ts";
import { staticRows } from "../../gpu/rows.ts";
import { createTensor, destroyTensor, tensorFrom } from "../../gpu/tensor.ts";
import { uniform } from "../../model/random.ts";
import { print, range, REPEATS } from "./report.ts";

/** The layouts of a linear layer's three products. */
const LAYOUTS = {
  "forward": { aDepthFirst: false, bDepthFirst: false },
  "input gradient": { aDepthFirst: false, bDepthFirst: true },
  "weight gradient": { aDepthFirst: true, bDepthFirst: true },
} as const;

const PRODUCTS = [[512, 512, 512], [1024, 256, 1024], [256, 1024, 1024]] as const;

/** Products in one submit, so that its cost does not count. */
const BATCH = 4;

/** The three products of a linear layer, at the peers' shapes. */
export async function benchProducts(device: GpuDevice): Promise<void> {
  print(`matrix product, f32: GFLOP/s, median of ${REPEATS} (range)`);
  for (const [rows, depth, columns] of PRODUCTS) {
    const next = uniform(1, "product");
    const operand = (size: number): Float32Array<ArrayBuffer> =>
      Float32Array.from({ length: size }, () => next() - 0.5);
    const a = tensorFrom(device, { data: operand(rows * depth), label: "a" });
    const b = tensorFrom(device, { data: operand(depth * columns), label: "b" });
    const out = createTensor(device, { shape: [rows, columns], label: "out" });
    const last = createTensor(device, { shape: [1], label: "last" });
    for (const [name, layout] of Object.entries(LAYOUTS)) {
      const commands = new Commands(device, name);
      const counted = { dimension: "rows", rows: staticRows(device, rows) } as const;
      for (let i = 0; i < BATCH; i++) {
        matmul(commands, { a, b, out }, { rows, depth, columns, ...layout, counted });
      }
      const speeds: number[] = [];
      for (let repeat = -2; repeat < REPEATS; repeat++) {
        const start = performance.now();
        submit(device, [commands]);
        await readTensor(device, last);
        const seconds = (performance.now() - start) / 1000;
        if (repeat >= 0) speeds.push((BATCH * 2 * rows * depth * columns) / seconds / 1e9);
      }
      print(`  ${`${rows}x${depth}x${columns} ${name}`.padEnd(32)} ${range(speeds, 1)}`);
      commands.destroy();
    }
    for (const tensor of [a, b, out, last]) destroyTensor(device, tensor);
  }
}
