/**
 * Speed on this machine's adapter: `deno task bench`, or the parts named: `deno task bench decoding`.
 *
 * Everything compared is measured in one run, in turn, and given as the median of several repeats with its range.
 * `routers` trains four models for some minutes each and compares their loss; it runs only when named.
 *
 * `deno task bench llama-cpp ...` compares with llama.cpp; it takes arguments of its own and runs alone.
 */
import { type GpuDevice, openDevice } from "../../gpu/device.ts";
import { benchDecoding } from "./decoding.ts";
import { runLlamaCpp } from "./llama_cpp.ts";
import { benchProducts } from "./products.ts";
import { print } from "./report.ts";
import { compareRouters } from "./routers.ts";
import { benchTraining } from "./training.ts";

const PARTS: Readonly<Record<string, (device: GpuDevice) => Promise<void>>> = {
  products: benchProducts,
  training: benchTraining,
  decoding: benchDecoding,
  routers: compareRouters,
};
const USUAL = ["products", "training", "decoding"];
const LLAMA_CPP = "llama-cpp";

async function runParts(names: readonly string[]): Promise<void> {
  const unknown = names.find((name) => !Object.hasOwn(PARTS, name));
  if (unknown !== undefined) {
    print(`bench: unknown part "${unknown}", wanted ${[...Object.keys(PARTS), LLAMA_CPP].join(", ")}`);
    Deno.exit(2);
  }
  for (const name of names) {
    // A device of its own for each part: none inherits compiled kernels or memory.
    using device = await openDevice();
    print(`\n${name} on ${device.info.description}${device.info.isSoftware ? " (software)" : ""}`);
    await PARTS[name]!(device);
  }
}

if (import.meta.main) {
  const [first, ...rest] = Deno.args;
  if (first === LLAMA_CPP) Deno.exit(await runLlamaCpp(rest));
  await runParts(Deno.args.length > 0 ? Deno.args : USUAL);
}
