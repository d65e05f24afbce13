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
};

async function checkCase(device: GpuDevice, { positions, tokens, width, spare }: Case): Promise<void> {
  const random = createRandom(1);
  const temperature = 0.7;
  const indices = positions.flatMap((kept, sequence) => kept.map((position) => sequence * tokens + position));
  const x = random.normals(positions.length * tokens * width);
  const weight = random.normals(width);
  const gradLogits = random.normals(indices.length);
  const before = { gradX: random.normals(x.length), gradWeight: random.normals(width) };

  const packing = uploadPacking(device, { positions, tokens, spare });
  const { rows } = packing;
  const tensors = {
    x: upload(device, x, [x.length / width, width]),
    weight: upload(device, weight, [1, width]),
  };
  const logits = blank(device, [rows.maximum]);
  const gradients = blank(device, [rows.maximum], 0);
  writeTensor(device, gradients, Float32Array.from(gradLogits));
  const gradX = upload(device, before.gradX, tensors.x.shape);
  const gradWeight = upload(device, before.gradWeight, [1, width]);
  const [logitValues, gradXValues, gradWeightValues] = await run(device, (commands) => {
    recordRows(commands, rows);
    routerScore(commands, { ...tensors, packing, logits }, { temperature });
    routerScoreBackward(commands, { ...tensors, packing, gradLogits: gradients, gradX, gradWeight }, {
      temperature,
    });
  }, [logits, gradX, gradWeight]);

  const expected = reference.routerScoreBackward({ gradLogits, x, weight, indices }, { temperature });
  assertClose(
    logitValues!.subarray(0, indices.length),
    reference.routerScore({ x, weight, indices }, { temperature }),
    {
      relative: 2e-6,
      label: "logits",
    },
  );
  assert(logitValues!.subarray(indices.length).every(Number.isNaN), "logits past the count were written");
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
