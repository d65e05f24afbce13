import { assert, assertEquals, assertThrows } from "@std/assert";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { asNarrow } from "../support/narrow_device.ts";
import { createRandom } from "../support/random.ts";
import * as reference from "../reference/sum_squares.ts";
import { clipCoefficient } from "../reference/adamw.ts";
import { Commands } from "../../gpu/commands.ts";
import { createTensor, viewTensor, writeTensor } from "../../gpu/tensor.ts";
import { flatWindows } from "../../gpu/kernels/flat_windows.ts";
import { clipNorm, partialSumCount, sumSquares } from "../../gpu/kernels/sum_squares.ts";

for (const count of [4, 1024, 16384, 16388, 100_004, 5_000_000]) {
  gpuTest(`sumSquares matches the reference for ${count} values, stored and added`, async (device) => {
    const x = createRandom(10).normals(count);
    const tensors = { values: upload(device, x), partials: blank(device, [partialSumCount(count) + 3]) };
    const out = blank(device, [3], 7);
    const [met] = await run(device, (commands) => {
      sumSquares(commands, { ...tensors, out });
      sumSquares(commands, { ...tensors, out }, { slot: 2, accumulate: true });
    }, [out]);
    const squares = reference.sumSquares(x);
    assertClose(met!, [squares, 7, 7 + squares], { relative: 1e-6, label: "out" });
  });
}

gpuTest("sumSquares binds what is longer than a binding in windows", async (opened) => {
  const device = asNarrow(opened);
  const step = device.limits.maxStorageBufferBindingSize / 4;
  const count = step + 1_000_000;
  const values = createTensor(device, { shape: [count], label: "values" });
  assertEquals(flatWindows(device, values).length, 2);
  const partials = blank(device, [partialSumCount(count)]);
  const out = blank(device, [1]);
  for (const start of [0, step - 4, step, count - 4]) {
    writeTensor(device, viewTensor(values, { start, shape: [4] }), Float32Array.of(1, 2, 3, 4));
  }
  const [met] = await run(device, (commands) => sumSquares(commands, { values, partials, out }), [out]);
  assertEquals([...met!], [120]);
});

gpuTest("sumSquares refuses values that do not fill its vectors, and a slot past the end", (device) => {
  const commands = new Commands(device, "test");
  const [values, partials, out] = [blank(device, [6]), blank(device, [1]), blank(device, [1])];
  assertThrows(
    () => sumSquares(commands, { values, partials, out }),
    TypeError,
    "6 elements, expected a multiple of 4",
  );
  assertThrows(
    () => sumSquares(commands, { values, partials, out }, { slot: 1 }),
    RangeError,
    "slot 1 is past",
  );
  return Promise.resolve();
});

for (const [squares, maxNorm] of [[9, 1], [9, 3], [9, 5], [0, 1], [9, 0], [1e30, 1]] as const) {
  gpuTest(`clipNorm of ${squares} with at most ${maxNorm} gives the norm and the factor`, async (device) => {
    const norm = blank(device, [2]);
    const [met] = await run(device, (commands) => {
      clipNorm(commands, { squares: upload(device, [squares]), norm }, { maxNorm });
    }, [norm]);
    const length = Math.sqrt(squares);
    const factor = maxNorm === 0 ? 1 : clipCoefficient(length, maxNorm);
    assertClose([met![0]!], [length], { relative: 1e-6, label: "norm" });
    assertClose([met![1]!], [factor], { relative: 1e-6, label: "coefficient" });
  });
}

for (const bad of [NaN, Infinity, 1e25]) {
  for (const maxNorm of [0, 1]) {
    gpuTest(`clipNorm marks a gradient with ${bad}, at most ${maxNorm}, by the factor 0`, async (device) => {
      const values = upload(device, [1, 1, bad, 1]);
      const [partials, squares, norm] = [blank(device, [1]), blank(device, [1]), blank(device, [2])];
      const [met] = await run(device, (commands) => {
        sumSquares(commands, { values, partials, out: squares });
        clipNorm(commands, { squares, norm }, { maxNorm });
      }, [norm]);
      assert(!Number.isFinite(met![0]!));
      assertEquals(met![1], 0);
    });
  }
}
