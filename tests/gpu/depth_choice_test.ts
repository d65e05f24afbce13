import { assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { depthChoice, depthChoiceBackward, type DepthFunction } from "../../gpu/kernels/depth_choice.ts";
import type { TensorData } from "../../gpu/tensor.ts";
import { depthLoad } from "../reference/depth_balance.ts";
import * as reference from "../reference/depth_choice.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { recordRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { caseRows, writtenPart } from "../support/row_cases.ts";

/** The exponential of a software adapter is good to about 1e-6. */
const relative = 2e-6;

interface Case {
  readonly count: number;
  readonly maximum: number;
  readonly recursions: number;
  readonly forced?: number;
}

const cases: Record<string, Case> = {
  "tidy sizes": { count: 128, maximum: 128, recursions: 4 },
  "odd sizes": { count: 301, maximum: 301, recursions: 3 },
  "one row": { count: 1, maximum: 1, recursions: 2 },
  "sixteen depths": { count: 77, maximum: 77, recursions: 16 },
  "a forced depth": { count: 77, maximum: 77, recursions: 3, forced: 2 },
  "a dynamic count": { count: 100, maximum: 300, recursions: 3 },
  "a dynamic count of zero": { count: 0, maximum: 300, recursions: 3 },
  "70,000 rows": { count: 70_000, maximum: 70_000, recursions: 3 },
};

/** Tensors that a test gives to `depthChoice` and its backward. */
interface ChoiceInput {
  readonly logits: Float64Array;
  readonly bias: Float64Array;
  readonly forced?: number;
  readonly gradGates: Float64Array;
  readonly load: ArrayLike<number>;
}

/** What they write. */
type ChoiceOutput = Record<"probabilities" | "depths" | "gates" | "squares" | "gradLogits", TensorData>;

async function runChoice(
  device: GpuDevice,
  { logits, bias, forced = 0, gradGates, load }: ChoiceInput,
  { count, maximum, ...settings }:
    & reference.DepthChoiceSettings
    & reference.DepthChoiceCoefficients
    & Pick<Case, "count" | "maximum">,
): Promise<ChoiceOutput> {
  const rows = caseRows(device, { count, maximum });
  const matrix = [maximum, settings.recursions];
  const input = upload(device, logits, matrix);
  const choice = {
    probabilities: blank(device, matrix),
    depths: blank(device, [maximum]),
    gates: blank(device, [maximum]),
    squares: blank(device, [maximum]),
  };
  const gradLogits = blank(device, matrix);
  const data = await run(device, (commands) => {
    recordRows(commands, rows);
    const decision = { bias: upload(device, bias), forced: uploadIndices(device, [forced]) };
    depthChoice(commands, { logits: input, ...decision, ...choice }, { rows, ...settings });
    const { probabilities, depths } = choice;
    const gradients = { gradGates: upload(device, gradGates), gradLogits };
    const tensors = { logits: input, probabilities, depths, load: uploadIndices(device, load) };
    depthChoiceBackward(commands, { ...tensors, ...gradients }, { rows, ...settings });
  }, [...Object.values(choice), gradLogits]);
  const [probabilities, depths, gates, squares, gradient] = data;
  return {
    probabilities: probabilities!,
    depths: depths!,
    gates: gates!,
    squares: squares!,
    gradLogits: gradient!,
  };
}

/** Logits with many ties, far enough from ties elsewhere that rounding decides no depth. */
function roundLogits(logits: Float64Array): Float64Array {
  return logits.map((logit) => Math.round(logit * 16) / 16);
}

async function checkCase(
  device: GpuDevice,
  { name, ...size }: Case & { name: DepthFunction },
): Promise<void> {
  const { count, maximum, recursions, forced = 0 } = size;
  const random = createRandom(5);
  const settings = { function: name, alpha: 0.6, balancingCoefficient: 0.4, zCoefficient: 0.3, ...size };
  const logits = roundLogits(random.normals(maximum * recursions, 2));
  const gradGates = random.normals(maximum);
  const bias = Float64Array.from({ length: recursions }, (_, j) => j % 2 * 0.125);
  const used = { logits: logits.subarray(0, count * recursions), gradGates: gradGates.subarray(0, count) };
  const expected = reference.depthChoice({ ...used, bias, forced }, settings);
  const { load } = depthLoad(expected, { recursions });
  const met = await runChoice(device, { logits, bias, forced, gradGates, load }, settings);
  const depths = writtenPart(met.depths, count);
  assertEquals(depths, [...expected.depths]);
  for (const label of ["probabilities", "gates", "squares"] as const) {
    assertClose(writtenPart(met[label], expected[label].length), expected[label], { relative, label });
  }
  const gradient = reference.depthChoiceBackward({ ...used, depths, load }, settings);
  const gradLogits = writtenPart(met.gradLogits, gradient.length);
  assertClose(gradLogits, gradient, { relative, label: "gradLogits" });
}

for (const name of ["softmax", "sigmoid", "none"] as const) {
  for (const [title, size] of Object.entries(cases)) {
    gpuTest(`depthChoice ${name} and its gradient match the reference with ${title}`, (device) => {
      return checkCase(device, { ...size, name });
    });
  }
}

const plain = { alpha: 1, balancingCoefficient: 0, zCoefficient: 0 };

for (const name of ["softmax", "sigmoid"] as const) {
  gpuTest(`depthChoice ${name} is finite for large logits`, async (device) => {
    const logits = Float64Array.of(1e4, -1e4, -100, 100, 30, -1e4, -1e4, -1e4);
    const settings = { ...plain, function: name, zCoefficient: 1, recursions: 2, count: 4, maximum: 4 };
    const [gradGates, load] = [new Float64Array(4).fill(1), [2, 2]];
    const input = { logits, bias: new Float64Array(2) };
    const met = await runChoice(device, { ...input, gradGates, load }, settings);
    const expected = reference.depthChoice(input, settings);
    assertEquals([...met.depths], [...expected.depths]);
    assertClose(met.probabilities, expected.probabilities, { relative, label: "probabilities" });
    assertClose(met.squares, expected.squares, { relative, label: "squares" });
    const gradient = reference.depthChoiceBackward(
      { logits, gradGates, depths: expected.depths, load },
      settings,
    );
    assertClose(met.gradLogits, gradient, { relative, label: "gradLogits" });
  });
}

gpuTest("the bias of depthChoice changes the depth but not the gate, and has no gradient", async (device) => {
  const logits = Float64Array.of(0.2, 0.1, 0);
  const settings = { ...plain, function: "softmax" as const, recursions: 3, count: 1, maximum: 1 };
  const input = { logits, gradGates: Float64Array.of(1), load: [0, 0, 1] };
  const free = await runChoice(device, { ...input, bias: new Float64Array(3) }, settings);
  const biased = await runChoice(device, { ...input, bias: Float64Array.of(0, 0, 0.5) }, settings);
  const other = await runChoice(device, { ...input, bias: Float64Array.of(0, 0, 0.4) }, settings);
  assertEquals([free.depths[0], biased.depths[0]], [1, 3]);
  assertEquals(biased.probabilities, free.probabilities);
  assertEquals(biased.gates[0], free.probabilities[2]);
  assertEquals(other, biased);
});

gpuTest("depthChoice takes a forced depth beyond the recursions as the last", async (device) => {
  const settings = { ...plain, function: "softmax" as const, recursions: 3, count: 1, maximum: 1 };
  const input = { logits: Float64Array.of(3, 2, 1), bias: new Float64Array(3), load: [0, 0, 1] };
  const { depths } = await runChoice(
    device,
    { ...input, forced: 9, gradGates: Float64Array.of(1) },
    settings,
  );
  assertEquals([...depths], [3]);
});
