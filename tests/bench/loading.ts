/** Memory and time of loading a model: `deno task bench loading MODEL [FORMAT]`. */
import type { GpuDevice } from "../../gpu/device.ts";
import { formatBytes } from "../../gpu/memory.ts";
import { openCheckpoint } from "../../model/files/checkpoint_source.ts";
import { fillWeights, type MatrixChoice, planWeights } from "../../model/load_weights.ts";
import { tokenizerFor } from "../../model/text/tokenizer_source.ts";
import { print } from "./report.ts";

/** Loads weights and tokenizer once, as every command does, and shows the process's largest resident memory on the way. */
export async function benchLoading(device: GpuDevice, args: readonly string[]): Promise<void> {
  const [path, choice = "auto"] = args;
  if (path === undefined) {
    print("usage: deno task bench loading MODEL [auto|f32|f16|q8_0|q4_0]");
    return;
  }
  const before = Deno.memoryUsage().rss;
  let peak = before;
  const look = (): void => {
    peak = Math.max(peak, Deno.memoryUsage().rss);
  };
  const start = performance.now();
  const source = await openCheckpoint(path);
  const { config } = source;
  look();
  using file = await source.openWeights();
  const held = device.memory.live;
  const planned = planWeights(device, { config, file, choice: choice as MatrixChoice });
  await fillWeights(device, planned, { file, onProgress: look });
  const seconds = (performance.now() - start) / 1000;
  const bytes = device.memory.live - held;
  tokenizerFor(await source.readTokenizer(), { config });
  look();
  const limit = 1.3 * bytes + 300e6;
  print(
    `${path} as ${choice}: weights ${formatBytes(bytes)} in ${
      seconds.toFixed(1)
    } s; resident memory at most ` +
      `${formatBytes(peak)}, ${formatBytes(before)} of it before; 1.3 x the weights + 300 MB is ${
        formatBytes(limit)
      }`,
  );
}
