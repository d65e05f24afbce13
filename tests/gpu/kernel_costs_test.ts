/** The work that kernels declare, against what their definitions ask for by hand. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { Commands, type RecordedDispatch } from "../../gpu/commands.ts";
import { type Work, workOf } from "../../gpu/cost.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { adamw } from "../../gpu/kernels/adamw.ts";
import { cacheAppend } from "../../gpu/kernels/cache_append.ts";
import { crossEntropy } from "../../gpu/kernels/cross_entropy.ts";
import { advance, nextRows } from "../../gpu/kernels/decode_step.ts";
import { divergence } from "../../gpu/kernels/divergence.ts";
import { embedding } from "../../gpu/kernels/embedding.ts";
import { routerScore, routerScoreBackward } from "../../gpu/kernels/router_score.ts";
import { markSeen } from "../../gpu/kernels/sample.ts";
import { type ScatterGating, scatterRows } from "../../gpu/kernels/scatter_rows.ts";
import { sum } from "../../gpu/kernels/sum.ts";
import { sumSquares } from "../../gpu/kernels/sum_squares.ts";
import { thresholdSelect } from "../../gpu/kernels/threshold.ts";
import { topK } from "../../gpu/kernels/top_k.ts";
import { createPackedMatrix, type Matrix, PACKED_FORMATS } from "../../gpu/packed_matrix.ts";
import { dynamicPacking, fixedPacking, fullPacking } from "../../gpu/packing.ts";
import { staticRows } from "../../gpu/rows.ts";
import { createTensor, type Tensor } from "../../gpu/tensor.ts";
import { blank, blankIndices, gpuTest } from "../support/device.ts";
import { kvDtypes } from "../support/kv.ts";
import { asNarrow } from "../support/narrow_device.ts";

/** The work of all that is recorded, where every dispatch finds `count` rows. */
function recordedWork(
  device: GpuDevice,
  record: (commands: Commands) => void,
  { count = 0 }: { count?: number } = {},
): Work {
  const commands = new Commands(device, "costs");
  record(commands);
  const works = commands.steps.map((step) =>
    workOf((step as RecordedDispatch).cost!, { count, records: null })
  );
  commands.destroy();
  return {
    flops: works.reduce((total, { flops }) => total + flops, 0),
    bytes: works.reduce((total, { bytes }) => total + bytes, 0),
  };
}

function checkAdamw(device: GpuDevice, count: number): void {
  const tensor = (): Tensor => blank(device, [count]);
  const tensors = {
    weights: tensor(),
    gradients: tensor(),
    firstMoments: tensor(),
    secondMoments: tensor(),
    norm: blank(device, [2]),
    step: blank(device, [4]),
  };
  const settings = { betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1 } as const;
  assertEquals(recordedWork(device, (commands) => adamw(commands, tensors, settings)).bytes, 28 * count);
}

gpuTest("adamw reads four arrays and writes three, whole or in windows", (device) => {
  checkAdamw(device, 1028);
  checkAdamw(asNarrow(device), 2 ** 21 + 4);
  return Promise.resolve();
});

/** Bytes of a row of 64 numbers: two blocks of 32, each with a scale of two bytes where the format has scales. */
const ROW_BYTES = { f32: 256, f16: 128, q8_0: 2 * 34, q4_0: 2 * 18 } as const;

for (const format of ["f32", ...PACKED_FORMATS] as const) {
  gpuTest(`embedding reads its rows alone, in ${format}, whole or in windows of the table`, (device) => {
    // The last panel of packed rows is not full.
    const shape = [300, 64] as const;
    const weight: Matrix = format === "f32"
      ? createTensor(device, { shape, label: "weight" })
      : createPackedMatrix(device, { format, shape, label: "weight" });
    const rows = staticRows(device, 9);
    const tensors = { ids: blankIndices(device, [9]), weight, out: blank(device, [9, 64]) };
    const record = (commands: Commands): void => embedding(commands, tensors, { rows });
    const wanted = { flops: 0, bytes: 5 * (ROW_BYTES[format] + 256) };
    assertEquals(recordedWork(device, record, { count: 5 }), wanted);
    const narrow = asNarrow(device, ROW_BYTES[format] * 130);
    assertAlmostEquals(recordedWork(narrow, record, { count: 5 }).bytes, wanted.bytes, 1e-6);
    return Promise.resolve();
  });
}

for (const dtype of kvDtypes) {
  gpuTest(`cacheAppend writes queries in f32, and entries of its rows in ${dtype}`, (device) => {
    const [heads, kvHeads, headDim] = [4, 2, 8];
    const [queries, entry] = [heads * headDim, 2 * kvHeads * headDim];
    const pool = dtype === "f32" ? blank(device, [160, entry]) : blankIndices(device, [160, entry / 2]);
    const tensors = {
      qkv: blank(device, [7, queries + entry]),
      places: fixedPacking(device, { count: 7 }),
      cache: { pool, pages: blankIndices(device, [1, 10]) },
      table: blank(device, [100, headDim / 2, 2]),
    };
    const work = recordedWork(
      device,
      (commands) => cacheAppend(commands, tensors, { heads, kvHeads, headDim }),
      { count: 3 },
    );
    const entryBytes = entry * (dtype === "f32" ? 4 : 2);
    assertEquals(work.bytes, 3 * (4 * (queries + entry) + 4 * queries + entryBytes));
    // A pair of numbers takes four products and two sums; values stay as they are.
    assertEquals(work.flops, 3 * 6 * (queries + kvHeads * headDim) / 2);
    return Promise.resolve();
  });
}

gpuTest("scatterRows copies the whole state, and changes its rows", (device) => {
  const tensors = {
    x: blank(device, [50, 12]),
    out: blank(device, [50, 12]),
    z: blank(device, [10, 12]),
    gates: blank(device, [10]),
    packing: dynamicPacking(device, { maximum: 10 }),
  };
  const work = (gating: ScatterGating, count: number): Work =>
    recordedWork(device, (commands) => scatterRows(commands, tensors, { gating }), { count });
  assertEquals(work("weighted", 0), { flops: 0, bytes: 2 * 50 * 48 });
  assertEquals(work("weighted", 4), { flops: 4 * 12 * 3, bytes: 2 * 50 * 48 + 4 * 3 * 48 });
  return Promise.resolve();
});

gpuTest("losses read the columns of the vocabulary once, and their gradient is written", (device) => {
  const [vocabSize, stride] = [10, 12];
  const [logits, referenceLogits] = [blank(device, [6, stride]), blank(device, [6, stride])];
  const [losses, agreements] = [blank(device, [6]), blank(device, [6])];
  const rows = staticRows(device, 6);
  const cross = (gradientScale: number | null): number =>
    recordedWork(device, (commands) => {
      crossEntropy(commands, { logits, targets: blankIndices(device, [6]), losses }, {
        rows,
        vocabSize,
        gradientScale,
      });
    }, { count: 5 }).bytes;
  assertEquals([cross(null), cross(0.1)], [5 * 40, 5 * 80]);
  const compared = recordedWork(device, (commands) => {
    divergence(commands, { referenceLogits, logits, divergences: losses, agreements }, { rows, vocabSize });
  }, { count: 5 });
  assertEquals(compared.bytes, 5 * 80);
  return Promise.resolve();
});

gpuTest("sums read their values once", (device) => {
  const values = blank(device, [40_000]);
  const [out, partials] = [blank(device, [4]), blank(device, [3])];
  const rows = staticRows(device, 40_000);
  // Three partial sums, written and read.
  assertEquals(recordedWork(device, (commands) => sumSquares(commands, { values, partials, out })), {
    flops: 2 * 40_000 + 3,
    bytes: 4 * (40_000 + 2 * 3 + 1),
  });
  for (const accumulate of [false, true]) {
    const record = (commands: Commands): void => sum(commands, { values, out }, { rows, accumulate });
    assertEquals(recordedWork(device, record, { count: 1000 }), {
      flops: 1000,
      bytes: 4 * (accumulate ? 1002 : 1001),
    });
  }
  return Promise.resolve();
});

gpuTest("a router's score and its gradients cost a product each", (device) => {
  const [weight, gradWeight] = [blank(device, [3, 16]), blank(device, [3, 16])];
  const [logits, gradLogits] = [blank(device, [9, 3]), blank(device, [9, 3])];
  const tensors = { x: blank(device, [20, 16]), packing: fixedPacking(device, { count: 9 }), weight };
  const settings = { temperature: 2 };
  const flops = (record: (commands: Commands) => void): number =>
    recordedWork(device, record, { count: 5 }).flops;
  const product = 2 * 5 * 3 * 16;
  assertEquals(flops((commands) => routerScore(commands, { ...tensors, logits }, settings)), product);
  for (const gradX of [null, blank(device, [20, 16])]) {
    assertEquals(
      flops((commands) =>
        routerScoreBackward(commands, { ...tensors, gradLogits, gradX, gradWeight }, settings)
      ),
      (gradX ? 2 : 1) * product,
    );
  }
  return Promise.resolve();
});

gpuTest("choices of rows cost what is known before they are made", (device) => {
  const candidates = fullPacking(device, [20]);
  const tensors = { logits: blank(device, [20]), chosen: blankIndices(device, [20]), candidates };
  const best = (packing = fixedPacking(device, { count: 8 })): number =>
    recordedWork(device, (commands) => {
      const ranges = blankIndices(device, [1, 4]);
      topK(commands, { ...tensors, ranges, labels: blank(device, [20]), packing }, {
        sequences: 1,
        longest: 20,
      });
    }, { count: 20 }).bytes;
  // Logits and labels; of eight kept rows a record is read, a record and an index are written.
  assertEquals(best(), 20 * 8 + 8 * (16 + 16 + 4));
  assertEquals(best(dynamicPacking(device, { maximum: 20 })), 20 * 8);
  const packing = dynamicPacking(device, { maximum: 20 });
  const above = recordedWork(device, (commands) => {
    const prefix = blankIndices(device, [21]);
    thresholdSelect(commands, { ...tensors, prefix, packing }, { threshold: 0 });
  }, { count: 20 });
  // Logits and places; then 64 launch shapes of four numbers for the number that is kept.
  assertEquals(above, { flops: 0, bytes: 20 * 8 + 4 * (64 * 4 + 1) });
  return Promise.resolve();
});

gpuTest("a decoding step's bookkeeping is some numbers of each row, or of a prompt's last", (device) => {
  const state = {
    slots: blankIndices(device, [6]),
    tokens: blankIndices(device, [6]),
    positions: blankIndices(device, [6]),
    packing: fixedPacking(device, { count: 6 }),
  };
  const bytes = (record: (commands: Commands) => void): number =>
    recordedWork(device, record, { count: 5 }).bytes;
  const ids = blankIndices(device, [6]);
  assertEquals(bytes((commands) => nextRows(commands, { ...state, ids })), 5 * 4 * (3 + 1 + 4));
  const end = {
    ...state,
    logProbabilities: blank(device, [6]),
    depths: blankIndices(device, [6]),
    history: blankIndices(device, [2, 6, 4]),
    cursor: blankIndices(device, [1]),
  };
  const row = 4 * (5 + 1 + 4);
  assertEquals(bytes((commands) => advance(commands, end)), 5 * row);
  assertEquals(bytes((commands) => advance(commands, end, { lastRow: true })), row);
  const seen = blankIndices(device, [6, 3]);
  const rows = staticRows(device, 6);
  assertEquals(bytes((commands) => markSeen(commands, { ids, slots: state.slots, seen }, { rows })), 5 * 16);
  return Promise.resolve();
});
