/** A batch under load for a long time: `deno task bench soak [SECONDS]`, ten minutes unless told. */
import type { GpuDevice } from "../../gpu/device.ts";
import { formatBytes } from "../../gpu/memory.ts";
import { soak } from "../support/batch_soak.ts";
import { print } from "./report.ts";

const SECONDS = 600;

/** Loads a batch and says what became of its texts, its pages and its memory. */
export async function benchSoak(
  device: GpuDevice,
  [seconds = String(SECONDS)]: readonly string[],
): Promise<void> {
  const report = await soak(device, { seconds: Number(seconds), seed: 1 });
  print(
    `${seconds} s: ${report.texts} texts, ${report.cancelled} of them cancelled, ${report.tokens} tokens, ` +
      `${report.restarts} begun anew for want of pages; ${report.repeated} texts asked for again were the same; ` +
      `after each of ${report.waves} waves every page was free and the device's memory as before; in use were ` +
      `${formatBytes(report.bytesBefore)} after a quarter of the time, ${
        formatBytes(report.bytesAfter)
      } at the end`,
  );
}
