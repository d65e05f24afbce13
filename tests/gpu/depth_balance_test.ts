import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { balancingLoss, depthLoad, updateBias } from "../../gpu/kernels/depth_balance.ts";
import { depthChoice, type DepthFunction } from "../../gpu/kernels/depth_choice.ts";
import * as reference from "../reference/depth_balance.ts";
import { assertClose } from "../support/close.ts";
import { blank, blankIndices, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { recordRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";
import { caseRows } from "../support/row_cases.ts";

const cases = [
  { name: "tidy sizes", count: 512, maximum: 512, recursions: 4 },
  { name: "odd sizes", count: 777, maximum: 777, recursions: 3 },
  { name: "one row", count: 1, maximum: 1, recursions: 2 },
  { name: "sixteen depths", count: 300, maximum: 300, recursions: 16 },
  { name: "a dynamic count", count: 300, maximum: 900, recursions: 3 },
  { name: "a dynamic count of zero", count: 0, maximum: 900, recursions: 3 },
  { name: "300,000 rows", count: 300_000, maximum: 300_000, recursions: 3 },
];

for (const { name, count, maximum, recursions } of cases) {
  gpuTest(`depthLoad and balancingLoss match the reference with ${name}`, async (device) => {
    const random = createRandom(6);
    const depths = Float64Array.from({ length: maximum }, () => 1 + random.integer(recursions));
    const probabilities = Float64Array.from({ length: maximum * recursions }, random.uniform);
    const rows = caseRows(device, { count, maximum });
    const input = {
      depths: upload(device, depths),
      probabilities: upload(device, probabilities, [maximum, recursions]),
    };
    const load = uploadIndices(device, new Uint32Array(recursions).fill(99));
    const totals = uploadIndices(device, Array.from({ length: recursions }, (_, j) => 10 + j));
    const means = blank(device, [recursions]);
    const losses = blank(device, [3], 5);
    const [gotLoad, gotTotals, gotMeans, gotLosses] = await run(device, (commands) => {
      recordRows(commands, rows);
      depthLoad(commands, { ...input, load, totals, means }, { rows, recursions });
      balancingLoss(commands, { load, means, losses }, { rows, recursions, slot: 1, scale: 0.5 });
    }, [load, totals, means, losses]);
    const expected = reference.depthLoad({
      depths: depths.subarray(0, count),
      probabilities: probabilities.subarray(0, count * recursions),
    }, { recursions });
    assertEquals([...gotLoad!], [...expected.load]);
    assertEquals([...gotTotals!], Array.from(expected.load, (tokens, j) => 10 + j + tokens));
    assertClose(gotMeans!, expected.means, { relative: 1e-6, label: "means" });
    const loss = reference.balancingLoss(expected);
    assertClose(gotLosses!, [5, 5 + loss / 2, 5], { relative: 1e-6, label: "losses" });
  });
}

/** Balancing loss of logits (rows, 3) as token choice meets it. */
async function lossOf(
  device: GpuDevice,
  { logits, ...settings }: { logits: readonly number[]; function: DepthFunction; alpha: number },
): Promise<number> {
  const recursions = 3;
  const count = logits.length / recursions;
  const rows = caseRows(device, { count, maximum: count });
  const probabilities = blank(device, [count, recursions]);
  const [depths, gates, squares] = [blank(device, [count]), blank(device, [count]), blank(device, [count])];
  const [load, totals] = [blankIndices(device, [recursions]), blankIndices(device, [recursions])];
  const [means, losses] = [blank(device, [recursions]), blank(device, [1], 0)];
  const [met] = await run(device, (commands) => {
    const choice = { probabilities, depths, gates, squares };
    depthChoice(commands, {
      logits: upload(device, logits, [count, recursions]),
      bias: blank(device, [recursions], 0),
      forced: blankIndices(device, [1]),
      ...choice,
    }, { rows, recursions, ...settings });
    depthLoad(commands, { depths, probabilities, load, totals, means }, { rows, recursions });
    balancingLoss(commands, { load, means, losses }, { rows, recursions });
  }, [losses]);
  return met![0]!;
}

gpuTest(
  "balancingLoss is alpha (softmax) or alpha R / 2 (sigmoid) in balance, R when collapsed",
  async (device) => {
    // Each depth is favoured as often, by hardly anything.
    const balanced = [1e-5, 0, 0, 0, 1e-5, 0, 0, 0, 1e-5];
    const met = [
      await lossOf(device, { logits: balanced, function: "softmax", alpha: 0.7 }),
      await lossOf(device, { logits: balanced, function: "sigmoid", alpha: 0.7 }),
      await lossOf(device, { logits: [99, 0, 0, 99, 0, 0], function: "softmax", alpha: 1 }),
    ];
    assertClose(met, [0.7, 0.7 * 3 / 2, 3], { relative: 2e-6, label: "losses" });
  },
);

const large = 2 ** 25;

for (
  const load of [
    [1, 2, 3, 2],
    [0, 0, 0, 0],
    [0, 0, 0, 1],
    [7, 7, 7],
    [large, large + 1],
    [large + 3, large, large, large + 1],
    [3_000_000_000, 1_000_000_000],
  ]
) {
  gpuTest(`updateBias follows the reference for the load ${load.join(", ")}`, async (device) => {
    const before = Float64Array.from(load, (_, j) => Math.fround(0.1 * j));
    const totals = uploadIndices(device, load);
    const bias = upload(device, before);
    const reset = upload(device, before);
    const [met, kept, zeros] = await run(device, (commands) => {
      updateBias(commands, { totals, bias, forced: uploadIndices(device, [0]) }, { rate: 0.25 });
      updateBias(commands, { totals, bias: reset, forced: uploadIndices(device, [3]) }, { rate: 0.25 });
    }, [bias, totals, reset]);
    const expected = reference.updateBias({ load, bias: before }, { rate: 0.25 });
    assertClose(met!, expected, { relative: 1e-6, label: "bias" });
    assertEquals([...kept!], load);
    assertEquals([...zeros!], load.map(() => 0));
  });
}

gpuTest("depthLoad refuses more rows than it can loop over, balancingLoss a slot past the end", (device) => {
  const commands = new Commands(device, "test");
  const [depths, probabilities, means] = [blank(device, [4]), blank(device, [4, 2]), blank(device, [2])];
  const [load, totals] = [blankIndices(device, [2]), blankIndices(device, [2])];
  const rows = caseRows(device, { count: 4, maximum: 4 });
  const many = { ...rows, maximum: 20_000_000 };
  const input = {
    depths: { ...depths, shape: [many.maximum] },
    probabilities: { ...probabilities, shape: [many.maximum, 2] },
  };
  assertThrows(
    () => depthLoad(commands, { ...input, load, totals, means }, { rows: many, recursions: 2 }),
    RangeError,
    "at most 16640000",
  );
  const losses = blank(device, [2]);
  assertThrows(
    () => balancingLoss(commands, { load, means, losses }, { rows, recursions: 2, slot: 2 }),
    RangeError,
    "slot 2 is past the 2",
  );
  return Promise.resolve();
});
