/**
 * Speed on this machine's adapter: `deno task bench`, or the parts named: `deno task bench decoding`.
 *
 * Everything compared is measured in one run, in turn, and given as the median of several repeats with its range.
 * `routers` trains four models for some minutes each and compares their loss, `activations` trains two with activations
 * stored as f32 and as f16; they run only when named.
 *
 * Some parts take arguments of their own and run alone: `quantization` (what fewer bits cost and bring), `loading`
 * (memory and time), `soak` (a batch under load for ten minutes), `kills` (a training run killed 200 times), `start` (of
 * the binary), `llama-cpp` and `jax-js` (side by side with llama.cpp and with jax-js).
 */
import { openTerminal } from "../../cli/terminal.ts";
import { tuneDevice } from "../../cli/tuning.ts";
import { type GpuDevice, openDevice } from "../../gpu/device.ts";
import { compareActivations } from "./activations.ts";
import { benchDecoding } from "./decoding.ts";
import { runJaxJs } from "./jax_js.ts";
import { runLlamaCpp } from "./llama_cpp.ts";
import { benchKills } from "./kills.ts";
import { benchLoading } from "./loading.ts";
import { benchProducts } from "./products.ts";
import { benchQuantization } from "./quantization.ts";
import { print } from "./report.ts";
import { compareRouters } from "./routers.ts";
import { benchSoak } from "./soak.ts";
import { benchStart } from "./start.ts";
import { benchTraining } from "./training.ts";

const PARTS: Readonly<Record<string, (device: GpuDevice) => Promise<void>>> = {
  products: benchProducts,
  training: benchTraining,
  decoding: benchDecoding,
  routers: compareRouters,
  activations: compareActivations,
};
const USUAL = ["products", "training", "decoding"];

/** Parts with arguments; the exit code comes back. */
const ALONE: Readonly<Record<string, (args: readonly string[]) => Promise<number>>> = {
  quantization: (args) => withDevice("quantization", (device) => benchQuantization(device, args)),
  loading: (args) => withDevice("loading", (device) => benchLoading(device, args)),
  soak: (args) => withDevice("soak", (device) => benchSoak(device, args)),
  kills: benchKills,
  "llama-cpp": runLlamaCpp,
  "jax-js": runJaxJs,
  start: benchStart,
};

/** Runs a part with a device of its own: none inherits compiled kernels or memory. */
async function withDevice(name: string, part: (device: GpuDevice) => Promise<void>): Promise<number> {
  using device = await openDevice();
  await tuneDevice(device, { terminal: openTerminal() });
  print(`\n${name} on ${device.info.description}${device.info.isSoftware ? " (software)" : ""}`);
  await part(device);
  return 0;
}

async function runParts(names: readonly string[]): Promise<void> {
  const unknown = names.find((name) => !Object.hasOwn(PARTS, name));
  if (unknown !== undefined) {
    print(
      `bench: unknown part "${unknown}", wanted ${[...Object.keys(PARTS), ...Object.keys(ALONE)].join(", ")}`,
    );
    Deno.exit(2);
  }
  for (const name of names) await withDevice(name, PARTS[name]!);
}

if (import.meta.main) {
  const [first, ...rest] = Deno.args;
  const alone = Object.hasOwn(ALONE, first ?? "") ? ALONE[first!] : undefined;
  if (alone) Deno.exit(await alone(rest));
  await runParts(Deno.args.length > 0 ? Deno.args : USUAL);
}
