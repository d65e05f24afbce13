import { assert } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { routerScore, routerScoreBackward } from "../../gpu/kernels/router_score.ts";
import { writeTensor } from "../../gpu/tensor.ts";
import * as reference from "../reference/router_score.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { allPositions, recordRows, uploadPacking } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";

interface Case {
  readonly positions: readonly (readonly number[])[];
  readonly tokens: number;
  readonly width: number;
  readonly outputs?: number;
  readonly spare?: number;
}

const cases: Record<string, Case> = {
  "when every token is a candidate": {
    positions: allPositions({ sequences: 2, tokens: 16 }),
    tokens: 16,
    width: 64,
  },
  "for candidates here and there": { positions: [[0, 2, 5], [], [1, 2, 3, 6]], tokens: 7, width: 20 },
  "for one candidate": { positions: [[4]], tokens: 6, width: 8 },
  "for fewer candidates than there is room for": {
    positions: [[1, 3], [0, 4]],
    tokens: 5,
    width: 12,
    spare: 33,
  },
  "for no candidates": { positions: [[], []], tokens: 5, width: 12, spare: 9 },
  "for rows longer than one invocation may loop": { positions: [[0, 1]], tokens: 2, width: 280_000 },
  "for more rows than one invocation may loop": {
    positions: allPositions({ sequences: 1, tokens: 70_000 }),
    tokens: 70_000,
    width: 4,
  },
  "for three outputs": {
    positions: allPositions({ sequences: 2, tokens: 16 }),
    tokens: 16,
    width: 64,
    outputs: 3,
  },
  "for seven outputs of fewer candidates than there is room for": {
    positions: [[0, 2, 5], [], [1, 2, 3, 6]],
    tokens: 7,
    width: 20,
    outputs: 7,
    spare: 10,
  },
  "for three outputs of no candidates": { positions: [[], []], tokens: 5, width: 12, outputs: 3, spare: 9 },
  "for outputs that together are longer than one invocation may loop": {
    positions: [[0, 1]],
    tokens: 2,
    width: 20_000,
    outputs: 16,
  },
};

async function checkCase(
  device: GpuDevice,
  { positions, tokens, width, outputs = 1, spare }: Case,
): Promise<void> {
  const random = createRandom(1);
  const settings = { temperature: 0.7, outputs };
  const indices = positions.flatMap((kept, sequence) => kept.map((position) => sequence * tokens + position));
  const x = random.normals(positions.length * tokens * width);
  const weight = random.normals(outputs * width);
  const gradLogits = random.normals(indices.length * outputs);
  const before = { gradX: random.normals(x.length), gradWeight: random.normals(weight.length) };

  const packing = uploadPacking(device, { positions, tokens, spare });
  const { rows } = packing;
  const tensors = {
    x: upload(device, x, [x.length / width, width]),
    weight: upload(device, weight, [outputs, width]),
  };
  const logits = blank(device, [rows.maximum, outputs]);
  const gradients = blank(device, [rows.maximum, outputs], 0);
  writeTensor(device, gradients, Float32Array.from(gradLogits));
  const gradX = upload(device, before.gradX, tensors.x.shape);
  const gradWeight = upload(device, before.gradWeight, [outputs, width]);
  const [logitValues, gradXValues, gradWeightValues] = await run(device, (commands) => {
    recordRows(commands, rows);
    routerScore(commands, { ...tensors, packing, logits }, settings);
    const backward = { ...tensors, packing, gradLogits: gradients, gradX, gradWeight };
    routerScoreBackward(commands, backward, settings);
  }, [logits, gradX, gradWeight]);

  const expected = reference.routerScoreBackward({ gradLogits, x, weight, indices }, settings);
  const scores = reference.routerScore({ x, weight, indices }, settings);
  assertClose(logitValues!.subarray(0, scores.length), scores, { relative: 2e-6, label: "logits" });
  assert(logitValues!.subarray(scores.length).every(Number.isNaN), "logits past the count were written");
  assertClose(gradXValues!, expected.gradX.map((value, i) => value + before.gradX[i]!), {
    relative: 1e-6,
    label: "gradX",
  });
  assertClose(gradWeightValues!, expected.gradWeight.map((value, i) => value + before.gradWeight[i]!), {
    relative: 5e-6,
    label: "gradWeight",
  });
}

for (const [name, settings] of Object.entries(cases)) {
  const title = `routerScore and its gradients match the reference ${name}`;
  gpuTest(title, (device) => checkCase(device, settings));
  gpuTest(`${title}, hardware launch shapes`, (device) => checkCase(asHardware(device), settings));
}

gpuTest(
  "routerScoreBackward without a gradient of the input gives that of the weight alone",
  async (device) => {
    const packing = uploadPacking(device, { positions: [[0, 1]], tokens: 2 });
    const tensors = {
      x: upload(device, [1, 2, 3, 4, 5, 6, 7, 8], [2, 4]),
      weight: upload(device, [1, 1, 1, 1], [1, 4]),
    };
    const gradWeight = blank(device, [1, 4], 0);
    const [met] = await run(device, (commands) => {
      const gradients = { gradLogits: upload(device, [2, -1]), gradX: null, gradWeight };
      routerScoreBackward(commands, { ...tensors, packing, ...gradients }, { temperature: 0.5 });
    }, [gradWeight]);
    assertClose(met!, [-6, -4, -2, 0], { relative: 1e-6, label: "gradWeight" });
  },
);
