import { assert } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { gate, gateBackward, type GateFunction } from "../../gpu/kernels/gate.ts";
import * as reference from "../reference/gate.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { recordRows, uploadRows } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";

interface Case {
  readonly candidates: number;
  /** Every how many candidates one is chosen. */
  readonly every: number;
  readonly count?: number;
  readonly spare?: number;
}

const cases: Record<string, Case> = {
  "for half of the candidates": { candidates: 128, every: 2 },
  "for an odd number": { candidates: 301, every: 3 },
  "for one row": { candidates: 1, every: 1 },
  "for fewer rows than there is room for": { candidates: 300, every: 2, spare: 100 },
  "for no rows": { candidates: 20, every: 1, count: 0, spare: 20 },
  "for 70,000 rows": { candidates: 70_000, every: 1 },
};

async function checkCase(
  device: GpuDevice,
  { candidates, every, count = Math.ceil(candidates / every), spare, name }: Case & { name: GateFunction },
): Promise<void> {
  const random = createRandom(3);
  const settings = { function: name, alpha: 0.3 };
  const logits = Float64Array.from(random.normals(candidates, 3), Math.fround);
  const chosen = Array.from({ length: count }, (_, i) => i * every);
  const gradWeights = random.normals(count);
  const before = random.normals(candidates);

  const rows = uploadRows(device, { count, spare });
  const padding = new Array<number>(rows.maximum - count).fill(0);
  const tensors = { logits: upload(device, logits), chosen: uploadIndices(device, [...chosen, ...padding]) };
  const gates = blank(device, [rows.maximum]);
  const gradGates = upload(device, [...gradWeights, ...padding]);
  const gradLogits = upload(device, before);
  const [gateValues, gradValues] = await run(device, (commands) => {
    recordRows(commands, rows);
    gate(commands, { ...tensors, gates }, { rows, ...settings });
    gateBackward(commands, { ...tensors, gradGates, gradLogits }, { rows, ...settings });
  }, [gates, gradLogits]);

  const expected = reference.gateBackward({ gradWeights, logits, chosen }, settings);
  assertClose(gateValues!.subarray(0, count), reference.gate({ logits, chosen }, settings), {
    relative: 2e-6,
    label: "gates",
  });
  assert(gateValues!.subarray(count).every(Number.isNaN), "gates past the count were written");
  assertClose(gradValues!, expected.map((value, i) => value + before[i]!), {
    relative: 2e-6,
    label: "gradLogits",
  });
}

for (const name of ["sigmoid", "tanh", "none"] as const) {
  for (const [title, settings] of Object.entries(cases)) {
    gpuTest(`gate ${name} and its gradient match the reference ${title}`, (device) => {
      return checkCase(device, { ...settings, name });
    });
  }

  gpuTest(`gate ${name} is finite for large logits`, async (device) => {
    const logits = Float64Array.of(-1e4, -100, -30, -1, 0, 1, 30, 100, 1e4);
    const chosen = [...logits.keys()];
    const rows = uploadRows(device, { count: logits.length });
    const [gates, gradLogits] = [blank(device, [logits.length]), blank(device, [logits.length], 0)];
    const tensors = { logits: upload(device, logits), chosen: uploadIndices(device, chosen) };
    const settings = { function: name, alpha: 1 };
    const [gateValues, gradValues] = await run(device, (commands) => {
      gate(commands, { ...tensors, gates }, { rows, ...settings });
      const gradGates = blank(device, [logits.length], 1);
      gateBackward(commands, { ...tensors, gradGates, gradLogits }, { rows, ...settings });
    }, [gates, gradLogits]);
    const gradWeights = new Float64Array(logits.length).fill(1);
    assertClose(gateValues!, reference.gate({ logits, chosen }, settings), {
      relative: 1e-6,
      label: "gates",
    });
    assertClose(gradValues!, reference.gateBackward({ gradWeights, logits, chosen }, settings), {
      relative: 1e-6,
      label: "gradLogits",
    });
  });
}
