/** Weights larger than the adapter binds at once: the same results from windows of rows. */
import { assert, assertEquals } from "@std/assert";
import type { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { embedding, embeddingBackward, groupByToken } from "../../gpu/kernels/embedding.ts";
import { linear, linearAdd, linearBackwardInput, linearBackwardWeight } from "../../gpu/kernels/linear.ts";
import { PACKED_FORMATS, rowWindows } from "../../gpu/packed_matrix.ts";
import { staticRows } from "../../gpu/rows.ts";
import * as embeddingReference from "../reference/embedding.ts";
import * as reference from "../reference/linear.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { asNarrow } from "../support/narrow_device.ts";
import { uploadPacked } from "../support/packed.ts";
import { createRandom } from "../support/random.ts";

const relative = 5e-6;
const depth = 1024;
/** A little more than 8 MiB of f32. */
const columns = 2100;
const sizes = { inFeatures: depth, outFeatures: columns };

/** Registers a test on a device that binds 8 MiB, for both kinds of adapters. */
function narrowTest(name: string, body: (device: GpuDevice) => Promise<void>): void {
  gpuTest(`${name}, software variant`, (device) => body(asNarrow(device)));
  gpuTest(`${name}, hardware variant`, (device) => body(asNarrow(asHardware(device))));
}

narrowTest("a matrix is cut at multiples of 128 rows, and only where it must be", (device) => {
  const weight = blank(device, [columns, depth]);
  const windows = rowWindows(device, weight).map(({ start, count }) => [start, count]);
  assertEquals(windows, [[0, 2048], [2048, 52]]);
  assertEquals(rowWindows(device, blank(device, [2048, depth])).length, 1);
  return Promise.resolve();
});

narrowTest("linear layers run forward and backward over windows of a weight", async (device) => {
  const random = createRandom(81);
  const weight = random.normals(columns * depth);
  const weightTensor = upload(device, weight, [columns, depth]);
  for (const count of [2, 20]) {
    const x = random.normals(count * depth);
    const gradOut = random.normals(count * columns);
    const rows = staticRows(device, count);
    const [input, added] = [upload(device, x, [count, depth]), upload(device, gradOut, [count, columns])];
    const [out, sum] = [0, 1].map(() => blank(device, [count, columns]));
    const gradX = blank(device, [count, depth]);
    const gradWeight = blank(device, [columns, depth], 1);
    const [gotOut, gotSum, gotGradX, gotGradWeight] = await run(device, (commands: Commands) => {
      linear(commands, { x: input, weight: weightTensor, out: out! }, { rows });
      const tensors = { x: input, weight: weightTensor, residual: added, out: sum! };
      linearAdd(commands, tensors, { rows });
      linearBackwardInput(commands, { gradOut: added, weight: weightTensor, gradX }, { rows });
      linearBackwardWeight(commands, { gradOut: added, x: input, gradWeight }, { rows });
    }, [out!, sum!, gradX, gradWeight]);
    const product = reference.linear({ x, weight }, sizes);
    const wantedGradX = reference.linearInputGradient({ gradOut, weight }, sizes);
    const wantedGradWeight = reference.linearWeightGradient({ gradOut, x }, sizes);
    assertClose(gotOut!, product, { relative, label: "out" });
    assertClose(gotSum!, product.map((value, i) => value + gradOut[i]!), { relative, label: "sum" });
    assertClose(gotGradX!, wantedGradX, { relative, label: "gradX" });
    assertClose(gotGradWeight!, wantedGradWeight.map((value) => value + 1), {
      relative,
      label: "gradWeight",
    });
  }
});

narrowTest("packed weights are read over windows", async (device) => {
  const random = createRandom(82);
  for (const format of PACKED_FORMATS) {
    const rowCount = { f16: 4200, q8_0: 7800, q4_0: 14_700 }[format];
    const { matrix, numbers } = uploadPacked(device, random.normals(rowCount * depth), {
      format,
      shape: [rowCount, depth],
    });
    assert(rowWindows(device, matrix).length === 2, format);
    const x = random.normals(depth);
    const [out, found] = [blank(device, [1, rowCount]), blank(device, [2, depth])];
    const [one, two] = [staticRows(device, 1), staticRows(device, 2)];
    const [got, gotRows] = await run(device, (commands) => {
      linear(commands, { x: upload(device, x, [1, depth]), weight: matrix, out }, { rows: one });
      const ids = uploadIndices(device, [rowCount - 1, 1]);
      embedding(commands, { ids, weight: matrix, out: found }, { rows: two });
    }, [out, found]);
    const wanted = reference.linear({ x, weight: numbers }, { inFeatures: depth, outFeatures: rowCount });
    assertClose(got!, wanted, { relative, label: format });
    const last = numbers.subarray((rowCount - 1) * depth);
    assertClose(gotRows!, [...last, ...numbers.subarray(depth, 2 * depth)], {
      relative: 1e-7,
      label: `${format} rows`,
    });
  }
});

narrowTest("embeddings are looked up and learned over windows", async (device) => {
  const random = createRandom(83);
  const ids = [2099, 0, 2047, 2048, 2099];
  const weight = random.normals(columns * depth);
  const gradOut = random.normals(ids.length * depth);
  const rows = staticRows(device, ids.length);
  const out = blank(device, [ids.length, depth]);
  const gradWeight = blank(device, [columns, depth], 0);
  const { order, starts } = groupByToken(ids, { vocabSize: columns });
  const [got, gotGradWeight] = await run(device, (commands) => {
    const tensors = { ids: uploadIndices(device, ids) };
    embedding(commands, { ...tensors, weight: upload(device, weight, [columns, depth]), out }, { rows });
    embeddingBackward(commands, {
      ...tensors,
      order: uploadIndices(device, order),
      starts: uploadIndices(device, starts),
      gradOut: upload(device, gradOut, [ids.length, depth]),
      gradWeight,
    }, { rows });
  }, [out, gradWeight]);
  const wantedOut = embeddingReference.embedding({ ids, weight }, { hiddenSize: depth });
  assertEquals(Array.from(got!), Array.from(wantedOut, Math.fround));
  const wanted = embeddingReference.embeddingBackward({ ids, gradOut }, {
    vocabSize: columns,
    hiddenSize: depth,
  });
  assertClose(gotGradWeight!, wanted, { relative, label: "gradWeight" });
});
