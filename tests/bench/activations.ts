/** Whether training with activations stored as f16 goes as it does in f32: `deno task bench activations`. */
import type { GpuDevice } from "../../gpu/device.ts";
import { ACTIVATION_RUNS, activationRuns, LOSS_TOLERANCE } from "../support/activation_runs.ts";
import { print } from "./report.ts";

const STEPS = 300;
const SHOWN = 50;

/** Trains two models both ways and prints their losses. The exit code is 1 where they differ too much. */
export async function compareActivations(device: GpuDevice): Promise<void> {
  for (const preset of ACTIVATION_RUNS) {
    const pairs = await activationRuns(device, { preset, steps: STEPS });
    print(`\n${preset}, ${STEPS} steps\n   step   loss, f32   loss, f16  difference`);
    for (const [i, { f32, f16, deviation }] of pairs.entries()) {
      const step = i + 1;
      if (step !== 1 && step % SHOWN !== 0) continue;
      const cells = [String(step).padStart(5), f32.toFixed(5).padStart(10), f16.toFixed(5).padStart(10)];
      print(`  ${cells.join("  ")}  ${percent(deviation).padStart(10)}`);
    }
    const deviations = pairs.map(({ deviation }) => deviation);
    const worst = Math.max(...deviations);
    const mean = deviations.reduce((sum, deviation) => sum + deviation, 0) / STEPS;
    print(
      `  largest difference ${percent(worst)}, at step ${deviations.indexOf(worst) + 1}, of at most ` +
        `${percent(LOSS_TOLERANCE)}; mean ${percent(mean)}`,
    );
    if (worst > LOSS_TOLERANCE) Deno.exitCode = 1;
  }
}

function percent(part: number): string {
  return `${(100 * part).toFixed(4)} %`;
}
