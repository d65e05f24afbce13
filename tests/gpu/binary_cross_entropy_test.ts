import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { binaryCrossEntropy } from "../../gpu/kernels/binary_cross_entropy.ts";
import type { Tensor } from "../../gpu/tensor.ts";
import * as reference from "../reference/binary_cross_entropy.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";

interface Case {
  readonly count: number;
  readonly spare?: number;
}

interface Outputs {
  readonly losses: Tensor;
  readonly squares: Tensor;
  readonly agreements: Tensor;
  readonly gradLogits: Tensor;
}

function allocateOutputs(device: GpuDevice, count: number): Outputs {
  const shape = [count];
  return {
    losses: blank(device, shape),
    squares: blank(device, shape),
    agreements: blank(device, shape),
    gradLogits: blank(device, shape),
  };
}

const cases: Record<string, Case> = {
  "for whole workgroups": { count: 256 },
  "for an odd number": { count: 133 },
  "for one candidate": { count: 1 },
  "for fewer candidates than there is room for": { count: 70, spare: 100 },
  "for no candidates": { count: 0, spare: 10 },
  "for 70,000 candidates": { count: 70_000 },
};

async function checkCase(device: GpuDevice, { count, spare }: Case): Promise<void> {
  const random = createRandom(5);
  const logits = Float64Array.from(random.normals(count, 4), Math.fround);
  const labels = Array.from({ length: count }, () => random.integer(2));
  const coefficients = { coefficient: 0.4, zCoefficient: 0.03 };

  const rows = uploadRows(device, { count, spare });
  const padding = new Array<number>(rows.maximum - count).fill(0);
  const inputs = {
    logits: upload(device, [...logits, ...padding]),
    labels: upload(device, [...labels, ...padding]),
  };
  const outputs = (): Outputs => allocateOutputs(device, rows.maximum);
  const [trained, evaluated] = [outputs(), outputs()];
  const settings = { rows, ...coefficients };
  const [losses, squares, agreements, gradLogits, ...evaluatedTerms] = await run(device, (commands) => {
    recordRows(commands, rows);
    binaryCrossEntropy(commands, { ...inputs, ...trained }, settings);
    binaryCrossEntropy(commands, { ...inputs, ...evaluated, gradLogits: null }, settings);
  }, [...Object.values(trained), ...Object.values(evaluated)]);

  const expected = reference.binaryCrossEntropy({ logits, labels });
  const expectedGradient = reference.binaryCrossEntropyBackward({ logits, labels }, coefficients);
  assertClose(losses!.subarray(0, count), expected.losses, { relative: 1e-6, label: "losses" });
  assertClose(squares!.subarray(0, count), expected.squares, { relative: 1e-6, label: "squares" });
  assertClose(gradLogits!.subarray(0, count), expectedGradient, { relative: 1e-6, label: "gradLogits" });
  assertEquals([...agreements!.subarray(0, count)], [...expected.agreements]);
  assertEquals(evaluatedTerms.slice(0, 3), [losses, squares, agreements]);
  assert(evaluatedTerms[3]!.every(Number.isNaN), "a gradient was written that nobody asked for");
  for (const values of [losses!, squares!, agreements!, gradLogits!]) {
    assert(values.subarray(count).every(Number.isNaN), "values past the count were written");
  }
}

for (const [name, settings] of Object.entries(cases)) {
  gpuTest(
    `binaryCrossEntropy and its gradient match the reference ${name}`,
    (device) => checkCase(device, settings),
  );
}

gpuTest("binaryCrossEntropy is exact for small losses and finite for large ones", async (device) => {
  const logits = Float64Array.of(-1e4, -100, -40, -20, -8, -4, -1, 0, 1, 4, 8, 20, 40, 100, 1e4);
  const labels = Array.from(logits, (logit) => Number(logit >= 0));
  const outputs = allocateOutputs(device, logits.length);
  const [losses, agreements, gradLogits] = await run(device, (commands) => {
    const inputs = { logits: upload(device, logits), labels: upload(device, labels) };
    const settings = { rows: uploadRows(device, { count: logits.length }), coefficient: 1, zCoefficient: 0 };
    binaryCrossEntropy(commands, { ...inputs, ...outputs }, settings);
  }, [outputs.losses, outputs.agreements, outputs.gradLogits]);
  const expected = reference.binaryCrossEntropy({ logits, labels }).losses;
  losses!.forEach((loss, i) => assertAlmostEquals(loss, expected[i]!, expected[i]! * 2e-5 + 1e-37));
  assert(gradLogits!.every(Number.isFinite), "a gradient is not finite");
  // A logit of 0 does not say 1.
  assertEquals([...agreements!], Array.from(logits, (logit) => Number(logit !== 0)));
});
